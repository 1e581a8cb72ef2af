"""The message store: delivery once, UIDs never given twice, a crash between rename and commit, expunge, names."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.mailbox import index as index_room
from gateway.mailbox.index import MAX_DELIVERIES, SCHEMA_VERSION, Index
from gateway.mailbox.store import MAX_OPEN, MessageStore

ALICE = "alice@example.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = MessageStore(tmp_path)
    yield opened
    opened.close()


def deliver(store: MessageStore, delivery_id: str, octets: bytes = b"A: b\r\n\r\nx\r\n", account: str = ALICE) -> bool:
    return store.deliver(account, lambda: [octets[:3], octets[3:]], delivery_id, 1000.5)


def uids(store: MessageStore, account: str = ALICE) -> list[int]:
    return [message.uid for message in store.snapshot(account)[1]]


def files(tmp_path: Path, folder: str = "cur") -> list[Path]:
    return sorted((tmp_path / "example.org" / "alice" / "Maildir" / folder).iterdir())


def test_a_delivered_message_is_there_as_it_was(store: MessageStore, tmp_path: Path) -> None:
    assert deliver(store, "d1")
    validity, (message,) = store.snapshot(ALICE)
    assert validity > 0
    assert (message.uid, message.size, message.internal_date) == (1, 11, 1000.5)
    with store.open_message(ALICE, message) as file:
        assert file.read() == b"A: b\r\n\r\nx\r\n"
    (path,) = files(tmp_path)
    assert path.name.endswith(",S=11,W=11,U=1:2,")
    assert path.name == message.file
    assert path.stat().st_mode & 0o777 == 0o600
    assert files(tmp_path, "tmp") == files(tmp_path, "new") == []


def test_the_same_delivery_is_stored_once(store: MessageStore, tmp_path: Path) -> None:
    assert deliver(store, "d1")
    assert not deliver(store, "d1")
    assert deliver(store, "d2")
    assert uids(store) == [1, 2]
    again = MessageStore(tmp_path)
    assert not deliver(again, "d2")
    again.close()


def test_a_uid_is_never_given_again(store: MessageStore, tmp_path: Path) -> None:
    for number in range(3):
        deliver(store, f"d{number}")
    assert store.expunge(ALICE, [3, 2, 99]) == 2
    deliver(store, "d9")
    assert uids(store) == [1, 4]
    assert len(files(tmp_path)) == 2
    assert store.expunge(ALICE, [1, 4]) == 2
    assert uids(store) == []
    validity = store.snapshot(ALICE)[0]
    again = MessageStore(tmp_path)
    deliver(again, "d10")
    assert (uids(again), again.snapshot(ALICE)[0]) == ([5], validity)
    again.close()


def test_a_delivery_that_fails_leaves_nothing(store: MessageStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"A: b\r\n"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.deliver(ALICE, broken, "d1", 0.0)
    assert uids(store) == []
    assert files(tmp_path) == files(tmp_path, "tmp") == []
    assert deliver(store, "d1")


def test_a_crash_between_rename_and_commit_delivers_nothing_and_the_retry_delivers_once(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        index_room.Index.add = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]  # dies at this step
        try:
            deliver(MessageStore(tmp_path), "d1")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files(tmp_path)) == 1  # the orphan that no row names
    store = MessageStore(tmp_path)
    assert uids(store) == []
    assert deliver(store, "d1")
    assert not deliver(store, "d1")
    (message,) = store.snapshot(ALICE)[1]
    with store.open_message(ALICE, message) as file:
        assert file.read() == b"A: b\r\n\r\nx\r\n"
    store.close()


def test_a_message_whose_flags_another_program_changed_is_found_and_removed(
    store: MessageStore, tmp_path: Path
) -> None:
    deliver(store, "d1")
    (path,) = files(tmp_path)
    path.rename(path.with_name(path.name + "S"))
    _, (message,) = store.snapshot(ALICE)
    with store.open_message(ALICE, message) as file:
        assert file.read().startswith(b"A: b")
    assert store.expunge(ALICE, [1]) == 1
    assert files(tmp_path) == []


def test_a_message_that_another_session_removed_is_not_found(store: MessageStore) -> None:
    deliver(store, "d1")
    _, (message,) = store.snapshot(ALICE)
    store.expunge(ALICE, [1])
    with pytest.raises(FileNotFoundError):
        store.open_message(ALICE, message)


@pytest.mark.parametrize(
    "account",
    [
        "",
        "alice",
        "@example.org",
        "alice@",
        "../x@example.org",
        "a/b@example.org",
        "a@../x",
        "..@example.org",
        ".@x",
        "a\0@x",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(store: MessageStore, tmp_path: Path, account: str) -> None:
    with pytest.raises(ValueError, match="no folder"):
        deliver(store, "d1", account=account)
    assert list(tmp_path.iterdir()) == []


def test_many_accounts_and_threads(store: MessageStore) -> None:
    accounts = [f"u{number}@example.org" for number in range(MAX_OPEN + 6)]
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for number, account in enumerate(accounts):
                deliver(store, f"{start}-{number}", account=account)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(uids(store, account) == [1, 2] for account in accounts)
    assert len(store._open) <= MAX_OPEN + 1


def test_a_newer_index_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        Index(path)


def test_an_index_opened_by_many_at_once_is_made_once(tmp_path: Path) -> None:
    for again in range(60):
        folder = tmp_path / str(again)
        folder.mkdir()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _, folder=folder: Index(folder / "index.db").close(), range(8)))


def test_old_delivery_ids_are_forgotten(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.db")
    index.begin()
    for number in range(MAX_DELIVERIES + 10):
        uid = index.next_uid("INBOX")
        index.add("INBOX", index_room.StoredMessage(uid, 1, f"f{uid}", 0.0), f"d{number}")
    index.commit()
    assert [index.has_delivery(f"d{number}") for number in (0, 9, 10, MAX_DELIVERIES + 9)] == [False, False, True, True]
    with pytest.raises(StoreError, match="no mailbox"):
        index.next_uid("Junk")
    index.close()
