"""The watch over what sessions in IDLE wait for, without sessions."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.servers import watching
from gateway.servers.watching import Waiter, Watching


class Place:
    def __init__(self) -> None:
        self.state = self.looks = 0

    def look(self) -> int:
        self.looks += 1
        return self.state


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second takes 10 ms."""
    monkeypatch.setattr(watching, "LOOK_S", 0.01)


async def news(waiter: Waiter, seconds: float = 5.0) -> bool:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await waiter.until(never, seconds)
    return waiter.takes_news()


async def rest(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not is_true():
            await asyncio.sleep(0.001)


def test_only_those_who_wait_for_what_has_changed_are_woken() -> None:
    async def run() -> None:
        watch, one, other = Watching(), Place(), Place()
        with (
            watch.waiting("one", one.look) as first,
            watch.waiting("one", one.look) as second,
            watch.waiting("other", other.look) as third,
        ):
            assert all(waiter.takes_news() for waiter in (first, second, third))  # what was before is news
            one.state = 1
            assert await asyncio.gather(news(first), news(second), news(third, 0.1)) == [True, True, False]

    asyncio.run(run())


def test_a_place_is_looked_at_once_however_many_wait_and_never_when_nobody_does() -> None:
    async def run() -> None:
        watch, place = Watching(), Place()
        with watch.waiting("one", place.look):
            with watch.waiting("one", place.look):
                await rest(lambda: place.looks > 3)
            before = place.looks
            await rest(lambda: place.looks > before)
        looks = place.looks
        await asyncio.sleep(0.05)
        assert place.looks == looks
        with watch.waiting("one", place.look) as waiter:  # and again when somebody comes
            assert waiter.takes_news()
            place.state = 1
            assert await news(waiter)

    asyncio.run(run())


def test_news_that_come_while_nobody_waits_end_the_next_wait_by_being_asked_for() -> None:
    async def run() -> None:
        watch, place = Watching(), Place()
        with watch.waiting("one", place.look) as waiter:
            assert waiter.takes_news()
            place.state = 1
            looks = place.looks
            await rest(lambda: place.looks > looks + 1)
            assert waiter.takes_news()
            assert not waiter.takes_news()

    asyncio.run(run())


def test_what_the_watch_misses_is_looked_for_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "REFRESH_S", 0.05)

    async def run() -> None:
        watch, place = Watching(), Place()
        with watch.waiting("one", place.look) as waiter:
            waiter.takes_news()
            assert await news(waiter)

    asyncio.run(run())


def test_octets_that_come_at_the_same_time_as_news_are_not_lost() -> None:
    async def run() -> None:
        waiter, reader = Waiter(), asyncio.StreamReader()
        for number in range(50):
            reading = asyncio.create_task(waiter.until(reader.read(10), 5.0))
            await asyncio.sleep(0)
            if number % 2:
                reader.feed_data(b"DONE")
                waiter.wake()
            else:
                waiter.wake()
                reader.feed_data(b"DONE")
            waiter.wake()
            found = await reading
            assert waiter.takes_news()
            assert (found or await waiter.until(reader.read(10), 5.0)) == b"DONE"

    asyncio.run(run())


def test_who_is_cancelled_while_news_come_is_cancelled() -> None:
    async def run() -> None:
        waiter = Waiter()
        waiting = asyncio.create_task(news(waiter))
        await asyncio.sleep(0)
        waiter.wake()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
