"""Gathering: what waits shares a statement and a commit; a bad item fails alone; nobody waits for ever."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.core.errors import StorageBroken, StoreError
from gateway.storage.gather import MAX_ITEMS, Gatherer
from gateway.storage.sqlite import Writer, connect, prepare

TABLE = ("CREATE TABLE a(b UNIQUE)",)


class World:
    def __init__(self, path: Path) -> None:
        prepare(path, TABLE)
        self.path = path
        self.writer = Writer(path)
        self.batches: list[list[object]] = []
        self.gatherer: Gatherer[object] = Gatherer(self.writer, self.write)

    def write(self, connection: sqlite3.Connection, items: list[object]) -> None:
        self.batches.append(items)
        marks = ", ".join(["(?)"] * len(items))
        connection.execute(f"INSERT INTO a VALUES {marks}", items)

    def rows(self) -> set[object]:
        connection = connect(self.path)
        try:
            return {value for (value,) in connection.execute("SELECT b FROM a")}
        finally:
            connection.close()

    def hold(self) -> Callable[[], None]:
        """The writer busy until the result is called."""
        started, go = threading.Event(), threading.Event()

        def job(connection: sqlite3.Connection) -> bool:
            started.set()
            return go.wait(10)

        self.writer.submit(job)
        assert started.wait(10)
        return go.set


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "x.db")
    yield made
    made.writer.stop()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


def test_what_waits_goes_in_one_statement_and_each_is_told_after_the_commit(world: World) -> None:
    async def add(value: int) -> None:
        await world.gatherer.add(value)
        assert value in world.rows()

    async def story() -> None:
        let_go = world.hold()
        tasks = [asyncio.create_task(add(value)) for value in range(50)]
        await asyncio.sleep(0)
        let_go()
        await asyncio.gather(*tasks)

    run(story)
    assert [len(batch) for batch in world.batches] == [50]
    assert world.rows() == set(range(50))


def test_a_long_queue_is_written_in_bounded_parts(world: World) -> None:
    count = 2 * MAX_ITEMS + 10

    async def story() -> None:
        let_go = world.hold()
        tasks = [asyncio.create_task(world.gatherer.add(value)) for value in range(count)]
        await asyncio.sleep(0)
        let_go()
        await asyncio.gather(*tasks)

    run(story)
    assert max(len(batch) for batch in world.batches) == MAX_ITEMS
    assert world.rows() == set(range(count))


def test_a_bad_item_fails_alone(world: World) -> None:
    async def story() -> None:
        let_go = world.hold()
        values: list[object] = [1, 2, 1, object(), 3]
        tasks = [asyncio.create_task(world.gatherer.add(value)) for value in values]
        await asyncio.sleep(0)
        let_go()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, False, True, True, False]
        assert isinstance(results[2], StoreError)
        await world.gatherer.add(4)

    run(story)
    assert world.rows() == {1, 2, 3, 4}


def test_a_cancelled_wait_does_not_undo_its_item_or_hold_up_the_others(world: World) -> None:
    async def story() -> None:
        let_go = world.hold()
        tasks = [asyncio.create_task(world.gatherer.add(value)) for value in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        let_go()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), asyncio.CancelledError, type(None)]

    run(story)
    assert world.rows() == {0, 1, 2}


def test_a_broken_writer_fails_all_who_wait_and_who_come(world: World) -> None:
    def broken(connection: sqlite3.Connection, items: list[object]) -> None:
        raise StorageBroken("disk")

    async def story() -> None:
        gatherer: Gatherer[object] = Gatherer(world.writer, broken)
        let_go = world.hold()
        other = asyncio.create_task(world.gatherer.add("other"))
        tasks = [asyncio.create_task(gatherer.add(value)) for value in range(3)]
        await asyncio.sleep(0)
        let_go()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [StorageBroken] * 3
        await other

    run(story)
    world.writer.stop()

    async def late() -> None:
        with pytest.raises(StoreError):
            await world.gatherer.add("late")

    run(late)


def test_many_loops_turns_and_threads_lose_nobody(world: World) -> None:
    """Announcing and taking race in every way that two threads find."""

    async def client(number: int) -> None:
        for step in range(40):
            await world.gatherer.add((number + 1) * 1000 + step)
            if step % 3 == number % 3:
                await asyncio.sleep(0)

    async def story() -> None:
        await asyncio.gather(*[client(number) for number in range(20)])

    run(story)
    assert len(world.rows()) == 800
