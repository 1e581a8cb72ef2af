"""One watch over all that sessions in IDLE wait for: each mailbox is looked at once a second, however many wait for it,
and only those who wait for one that has changed are woken.

A look is a few `stat` calls. Whatever it misses is found by the sessions themselves, which are woken every few minutes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

LOOK_S = 1.0  # how soon IDLE tells what others did
REFRESH_S = 300.0  # the same, should the watch have missed it
AT_ONCE = 100  # places that are looked at before others have their turn

T = TypeVar("T")


class Waiter:
    """One session that waits. What was before it came is news to it too."""

    def __init__(self) -> None:
        self._has_news = True
        self._timeout: asyncio.Timeout | None = None

    def takes_news(self) -> bool:
        """Has there been any since this was last asked?"""
        has_news, self._has_news = self._has_news, False
        return has_news

    def wake(self) -> None:
        self._has_news = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(0.0)

    async def until(self, wanted: Awaitable[T], seconds: float) -> T | None:
        """None: there is news first, or the time is over. News end the wait as its time-out does, so that a session
        that waits needs no second task.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as self._timeout:
                try:
                    return await wanted
                finally:
                    self._timeout = None
        return None


class _Place:
    """What some wait for. look: gives something else whenever it has changed."""

    def __init__(self, look: Callable[[], Hashable]) -> None:
        self._look = look
        self._seen = look()
        self.waiters: set[Waiter] = set()
        self._refresh_at = asyncio.get_running_loop().time() + _refresh_after()

    def look(self, now: float) -> None:
        found = self._look()
        if found != self._seen or now >= self._refresh_at:
            self._seen, self._refresh_at = found, now + _refresh_after()
            for waiter in self.waiters:
                waiter.wake()


def _refresh_after() -> float:
    """Spread out: many sessions come at the same time."""
    return REFRESH_S * random.uniform(0.5, 1.0)  # noqa: S311  # no secret


class Watching:
    """Of one process, on its event loop."""

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def waiting(self, key: Hashable, look: Callable[[], Hashable]) -> Iterator[Waiter]:
        """For one session, as long as it waits. key: of the place; the first one's `look` serves all."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(look)
        waiter = Waiter()
        place.waiters.add(waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield waiter
        finally:
            place.waiters.discard(waiter)
            if not place.waiters:
                del self._places[key]

    async def _watch(self) -> None:
        """As long as anybody waits."""
        loop = asyncio.get_running_loop()
        while self._places:
            await asyncio.sleep(LOOK_S)
            for count, place in enumerate(list(self._places.values()), 1):
                place.look(loop.time())
                if count % AT_ONCE == 0:
                    await asyncio.sleep(0)
