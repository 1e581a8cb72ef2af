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
from gateway.mailbox.index import FORGOTTEN, MAX_DELIVERIES, Index
from gateway.mailbox.indexes import MAX_OPEN
from gateway.mailbox.maildir import KEPT
from gateway.mailbox.schema import SCHEMA_VERSION
from gateway.mailbox.store import MessageStore
from gateway.servers.summarised import open_store

ALICE = "alice@example.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
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
    with store.reading.open_message(ALICE, message) as file:
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
    again = open_store(tmp_path)
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
    again = open_store(tmp_path)
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
            deliver(open_store(tmp_path), "d1")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(files(tmp_path)) == 1  # the orphan that no row names
    store = open_store(tmp_path)
    assert uids(store) == []
    assert deliver(store, "d1")
    assert not deliver(store, "d1")
    (message,) = store.snapshot(ALICE)[1]
    with store.reading.open_message(ALICE, message) as file:
        assert file.read() == b"A: b\r\n\r\nx\r\n"
    store.close()


def test_a_message_whose_flags_another_program_changed_is_found_and_removed(
    store: MessageStore, tmp_path: Path
) -> None:
    deliver(store, "d1")
    (path,) = files(tmp_path)
    path.rename(path.with_name(path.name + "S"))
    _, (message,) = store.snapshot(ALICE)
    with store.reading.open_message(ALICE, message) as file:
        assert file.read().startswith(b"A: b")
    assert store.expunge(ALICE, [1]) == 1
    assert files(tmp_path) == []


def test_a_message_that_another_session_removed_is_not_found(store: MessageStore) -> None:
    deliver(store, "d1")
    _, (message,) = store.snapshot(ALICE)
    store.expunge(ALICE, [1])
    with pytest.raises(FileNotFoundError):
        store.reading.open_message(ALICE, message)


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
    assert len(store._indexes) <= MAX_OPEN + 1


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
    with index.change():
        for number in range(MAX_DELIVERIES + FORGOTTEN):
            index.note_delivery(f"d{number}")
    numbers = 0, FORGOTTEN - 1, FORGOTTEN, MAX_DELIVERIES + FORGOTTEN - 1
    found = [index.arrival("INBOX", f"d{number}") for number in numbers]
    assert [each is not None and each.is_there for each in found] == [False, False, True, True]
    index.close()


# --- an index of the first version ---------------------------------------------------------------------------------

FIRST = """
CREATE TABLE box(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL, modseq INTEGER NOT NULL, special TEXT NOT NULL DEFAULT '',
    sub INTEGER NOT NULL DEFAULT 1);
CREATE TABLE msg(box INTEGER NOT NULL REFERENCES box(id), uid INTEGER NOT NULL, modseq INTEGER NOT NULL,
    flags TEXT NOT NULL DEFAULT '', size INTEGER NOT NULL, idate REAL NOT NULL, savedate REAL NOT NULL,
    file TEXT NOT NULL, emailid TEXT NOT NULL, PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE TABLE kw(box INTEGER NOT NULL, uid INTEGER NOT NULL, word TEXT NOT NULL,
    PRIMARY KEY(box, uid, word)) WITHOUT ROWID;
CREATE TABLE meta(id INTEGER PRIMARY KEY, box INTEGER NOT NULL, uid INTEGER NOT NULL, env BLOB, bs BLOB, hdr BLOB,
    parts BLOB, UNIQUE(box, uid));
CREATE TABLE expunged(box INTEGER NOT NULL, uid INTEGER NOT NULL, modseq INTEGER NOT NULL,
    PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE TABLE quota(octets INTEGER NOT NULL, messages INTEGER NOT NULL);
CREATE TABLE delivery(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
INSERT INTO quota VALUES(11, 1);
INSERT INTO box(id, name, uidvalidity, uidnext, modseq) VALUES(1, 'INBOX', 100, 4, 5);
INSERT INTO msg(box, uid, modseq, size, idate, savedate, file, emailid) VALUES(1, 3, 5, 11, 1000.5, 1000.5, 'f3', 'd3');
INSERT INTO expunged VALUES(1, 2, 4);
INSERT INTO delivery(id) VALUES('d3');
PRAGMA user_version=1;
"""


def test_an_index_of_the_first_version_keeps_all(tmp_path: Path) -> None:
    folder = tmp_path / "example.org" / "alice"
    (folder / "Maildir" / "cur").mkdir(parents=True)
    (folder / "Maildir" / "cur" / "f3:2,").write_bytes(b"A: b\r\n\r\nx\r\n")
    connection = sqlite3.connect(folder / "index.db")
    connection.executescript(FIRST)
    connection.close()
    store = open_store(tmp_path)
    validity, (message,) = store.snapshot(ALICE)
    assert (validity, message.uid, message.size, message.internal_date) == (100, 3, 11, 1000.5)
    assert not deliver(store, "d3")
    opened = store.open_box(ALICE, "INBOX", takes_recent=True)
    details = store.reading.details(ALICE, opened.box, [3]).found[3]  # worked out when it is asked for
    assert details.header == b"A: b\r\n\r\n"
    assert deliver(store, "d4")
    assert uids(store) == [3, 4]
    assert store.usage(ALICE) == (22, 2)
    boxes, subscribed = store.boxes(ALICE)
    assert {box.name for box in boxes} == subscribed == {"INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"}
    assert len({box.uidvalidity for box in boxes}) == 6
    store.close()


@pytest.mark.parametrize("size", [0, KEPT - 1, KEPT, KEPT + 1, 3 * KEPT])
def test_what_is_worked_out_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    """Read again or not."""
    store = open_store(tmp_path)
    head = b"Subject: large\r\n\r\n"
    body = b"x" * max(0, size - len(head))
    pieces = [head, *(body[at : at + 65_536] for at in range(0, len(body), 65_536))]
    assert store.deliver("carol@example.org", lambda: iter(pieces), "1", 1.0)
    opened = store.open_box("carol@example.org", "INBOX", takes_recent=False)
    (found,) = store.reading.details("carol@example.org", opened.box, [1]).found.values()
    assert found.size == len(head) + len(body)
    assert b'"large"' in found.envelope
    assert b" %d " % len(body) in found.structure
    with store.reading.open_message("carol@example.org", found) as file:
        assert file.read() == head + body
    assert not list((tmp_path / "example.org" / "carol" / "Maildir" / "tmp").iterdir())
    store.close()
