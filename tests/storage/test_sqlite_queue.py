"""The queue on SQLite: the contract, and what is SQLite's own: files of bodies, messages that are damaged."""

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.message.blob import FileBlob
from gateway.queue.store import Filter, State
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.storage.sqlite_queue import SqliteQueue
from tests.queue.queue_contract import BODY, FullStore, Opener, QueueContract, claim, ids, new, run, settle


class Opened(SqliteQueue):
    """A queue, and the desk and quarantine beside it."""

    desk: QueueDesk
    quarantine: SqliteQuarantine


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    opened: list[Opened] = []
    spool = Spool(tmp_path / "spool", threads=1)
    spool.prepare()

    def open_one(owner: str) -> FullStore:
        one = Opened(tmp_path / "queue.db", spool, owner=owner)
        one.desk = QueueDesk(tmp_path / "queue.db", spool)
        one.quarantine = SqliteQuarantine(tmp_path / "queue.db", spool)
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        one.close()
        one.desk.close()
        one.quarantine.close()
    spool.pool.shutdown()


class TestSqliteQueue(QueueContract):
    """All of the contract."""


def large(tmp_path: Path, queue_id: str) -> object:
    path = tmp_path / f"incoming-{queue_id}"
    path.write_bytes(BODY * 7000)
    return replace(new(queue_id), blob=FileBlob(path, len(BODY) * 7000))


def bodies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "spool" / "blob").glob("*/*"))


def test_a_body_s_file_is_there_while_a_row_names_it(tmp_path: Path, opener: Opener) -> None:
    store = opener("queue-0")
    assert isinstance(store, Opened)
    run(store.enqueue(large(tmp_path, "Q1")))  # type: ignore[arg-type]
    assert [path.name for path in bodies(tmp_path)] == list(store.desk.blob_names())
    (found,) = run(claim(store))
    run(store.settle(settle(found)))
    assert bodies(tmp_path) == []
    assert store.desk.blob_names() == set()
    run(store.enqueue(large(tmp_path, "Q2")))  # type: ignore[arg-type]
    assert store.desk.delete(Filter()) == 1
    assert bodies(tmp_path) == []


def test_a_message_that_is_refused_leaves_no_file(tmp_path: Path, opener: Opener) -> None:
    store = opener("queue-0")
    run(store.enqueue(new("Q1")))
    with pytest.raises(StoreError):
        run(store.enqueue(large(tmp_path, "Q1")))  # type: ignore[arg-type]
    assert bodies(tmp_path) == []


@pytest.mark.parametrize("damage", ["missing", "short", "recipient"])
def test_a_damaged_message_is_set_aside_and_its_neighbours_go_on(tmp_path: Path, opener: Opener, damage: str) -> None:
    store = opener("queue-0")
    run(store.enqueue(large(tmp_path, "BAD")))  # type: ignore[arg-type]
    run(store.enqueue(new("GOOD", age=1.0)))
    (body,) = bodies(tmp_path)
    if damage == "missing":
        body.unlink()
    elif damage == "short":
        body.write_bytes(BODY)
    else:
        connection = sqlite3.connect(tmp_path / "queue.db")
        with connection:
            connection.execute("UPDATE recipient SET forward_path = 'nonsense' WHERE message = 1")
        connection.close()
    assert [found.message.queue_id for found in run(claim(store))] == ["GOOD"]
    (bad,) = store.desk.entries(Filter(state=State.CORRUPT))
    assert bad.queue_id == "BAD"
    assert bad.last_reply.startswith("set aside: ")
    assert run(claim(store)) == []
    assert store.desk.delete(Filter(queue_id="BAD")) == 1
    assert bodies(tmp_path) == []


def test_a_cancelled_enqueue_is_whole_or_not_at_all(opener: Opener) -> None:
    store = opener("queue-0")

    async def story() -> None:
        tasks = [
            asyncio.create_task(store.enqueue(new(f"Q{number}", "a@x.example", "b@x.example"))) for number in range(20)
        ]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(store.enqueue(new("LAST")), 5)

    run(story())
    found = ids(store)
    assert "LAST" in found
    assert all(found.count(name) == 2 for name in set(found) - {"LAST"})
