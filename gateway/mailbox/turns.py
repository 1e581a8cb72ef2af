"""Calls of the store one after the other for each mailbox's owner: it takes no more at once, and those of one user that
wait must not have all the threads.
"""

import asyncio
from weakref import WeakValueDictionary


class Turns:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """Whose holder's turn it is; forgotten once nobody holds it or waits."""
        found = self._locks.get(name)
        if found is None:
            found = self._locks[name] = asyncio.Lock()
        return found
