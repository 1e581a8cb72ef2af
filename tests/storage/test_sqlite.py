"""The writer: one commit for all that wait, a failed job costs its neighbours nothing; schema versions."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError, StoreError
from gateway.storage.sqlite import Writer, connect, prepare

TABLE = ("CREATE TABLE a(b UNIQUE)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    prepare(tmp_path / "x.db", TABLE)
    return tmp_path / "x.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    opened = Writer(path)
    yield opened
    opened.stop()


def insert(value: object) -> "object":
    return lambda connection: connection.execute("INSERT INTO a VALUES(?)", [value]).rowcount


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM a").fetchone()[0])
    finally:
        connection.close()


def blocked(writer: Writer) -> tuple[threading.Event, "Future[object]"]:
    """The writer busy with a job that waits for the event."""
    started, go = threading.Event(), threading.Event()

    def job(connection: sqlite3.Connection) -> object:
        started.set()
        return go.wait(10)

    future = writer.submit(job)
    assert started.wait(10)
    return go, future


def test_jobs_that_wait_share_one_commit(writer: Writer, path: Path) -> None:
    go, _ = blocked(writer)
    seen: list[int] = []

    def job(value: int) -> "object":
        def run(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO a VALUES(?)", [value])
            seen.append(count(path))
            return value

        return run

    futures = [writer.submit(job(value)) for value in range(50)]  # type: ignore[arg-type]
    go.set()
    assert [future.result(10) for future in futures] == list(range(50))
    assert seen == [0] * 50  # nobody outside saw a part
    assert count(path) == 50


def test_a_failing_job_leaves_its_neighbours_alone(writer: Writer, path: Path) -> None:
    go, _ = blocked(writer)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO a VALUES('half')")
        raise KeyError("mine")

    first, broken, twice, last = (
        writer.submit(insert(1)),  # type: ignore[arg-type]
        writer.submit(half),
        writer.submit(insert(1)),  # type: ignore[arg-type]
        writer.submit(insert(2)),  # type: ignore[arg-type]
    )
    go.set()
    assert (first.result(10), last.result(10)) == (1, 1)
    with pytest.raises(KeyError):
        broken.result(10)
    with pytest.raises(StoreError, match="UNIQUE"):
        twice.result(10)
    assert count(path) == 2


def test_a_cancelled_wait_leaves_the_job_and_the_writer_alone(writer: Writer, path: Path) -> None:
    async def story() -> None:
        go, _ = blocked(writer)
        waiting = asyncio.create_task(writer.run(insert("kept")))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        await asyncio.wait_for(writer.run(insert("next")), 5)  # type: ignore[arg-type]

    asyncio.run(story())
    assert count(path) == 2


def test_two_writers_take_turns(path: Path, writer: Writer) -> None:
    other = Writer(path)
    futures = [(writer, other)[number % 2].submit(insert(number)) for number in range(200)]  # type: ignore[arg-type]
    assert sum(future.result(10) for future in futures) == 200  # type: ignore[misc]
    other.stop()
    assert count(path) == 200


def test_stop_finishes_what_waits_and_takes_no_more(path: Path) -> None:
    writer = Writer(path)
    go, _ = blocked(writer)
    future = writer.submit(insert(1))  # type: ignore[arg-type]
    go.set()
    writer.stop()
    assert future.result(0) == 1
    with pytest.raises(StoreError, match="stopping"):
        writer.submit(insert(2))  # type: ignore[arg-type]
    assert count(path) == 1


def test_prepare_makes_and_migrates_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.db"
    prepare(path, TABLE)
    assert path.stat().st_mode & 0o777 == 0o600
    connection = connect(path)
    connection.execute("INSERT INTO a VALUES(1)")
    connection.close()
    prepare(path, (*TABLE, "ALTER TABLE a ADD COLUMN c DEFAULT 5", "UPDATE a SET c = c + 1"))
    prepare(path, (*TABLE, "ALTER TABLE a ADD COLUMN c DEFAULT 5", "UPDATE a SET c = c + 1"))
    connection = connect(path)
    assert connection.execute("SELECT b, c FROM a").fetchall() == [(1, 6)]
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()


def test_a_newer_database_is_refused_untouched(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.db has schema version 1, this program knows 0"):
        prepare(path, ())
    assert count(path) == 0


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match=r"x\.db"):
        prepare(path, (*TABLE, "INSERT INTO a VALUES(1); INSERT INTO nowhere VALUES(1)"))
    assert count(path) == 0
    prepare(path, TABLE)


def test_a_file_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"x\.db"):
        prepare(tmp_path / "x.db", TABLE)
