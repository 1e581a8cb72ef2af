"""seen.sender_before: has mail from this reverse-path been delivered before?"""

from typing import Protocol

from gateway.policy.context import Context, Need
from gateway.policy.values import Found


class SeenStore(Protocol):
    async def has_seen(self, sender: str) -> bool: ...

    async def see(self, sender: str) -> None: ...


class SeenSenders:
    def __init__(self, store: SeenStore) -> None:
        self._store = store

    async def fetch(self, need: Need, context: Context) -> Found:
        sender = _sender(context)
        return bool(sender) and await self._store.has_seen(sender)

    async def happened(self, context: Context) -> None:
        """Mail was accepted and goes to somebody."""
        sender = _sender(context)
        if sender:
            await self._store.see(sender)


def _sender(context: Context) -> str:
    """Local parts differ by case for nobody but a spammer."""
    return "" if context.reverse_path is None or context.reverse_path.is_null else str(context.reverse_path).lower()
