"""`store check`: a fault of each kind is said, mended where it can be, and gone afterwards."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.mailbox import maildir
from gateway.mailbox.maintenance import Maintenance
from gateway.mailbox.store import MessageStore
from gateway.servers.summarised import open_store, summarised
from tests.support.clock import settle

DAVE = "dave@example.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
    for number in range(3):
        opened.append(DAVE, "INBOX", [b"Subject: %d\r\n\r\nx\r\n" % number], 0, [], 1000.0)
    settle(tmp_path)  # the first check finds the folders at rest, and so remembers them
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path, store: MessageStore) -> Path:
    return tmp_path / "example.org" / "dave"


def maintenance(folder: Path) -> Maintenance:
    return Maintenance(folder.parent.parent, summarised)


def sql(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "index.db")) as connection:
        connection.execute(statement)
        connection.commit()


def grown(folder: Path) -> None:
    cur = folder / "Maildir" / "cur"
    with (cur / next(iter(maildir.listing(folder / "Maildir", "cur").values()))).open("ab") as file:
        file.write(b"more\r\n")


def given_up(folder: Path) -> None:
    path = folder / "Maildir" / "tmp" / "1.x.y"
    path.write_bytes(b"half")
    os.utime(path, (1000.0, 1000.0))


FAULTS = {
    "octets in its file": grown,
    "was given up": given_up,
    "the index counts 7 messages": lambda folder: sql(folder, "UPDATE quota SET messages = 7"),
    "is behind its messages": lambda folder: sql(folder, "UPDATE box SET uidnext = 2 WHERE name = 'INBOX'"),
    "summaries of messages": lambda folder: sql(
        folder, "UPDATE meta SET uid = 99 WHERE uid = 2 AND box = (SELECT id FROM box WHERE name = 'INBOX')"
    ),
    "which is not there": lambda folder: sql(folder, "UPDATE msg SET box = 5 WHERE uid = 3"),
    "not what its file says": lambda folder: sql(folder, "UPDATE meta SET env = x'00' WHERE uid = 2"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_is_said_and_mended(store: MessageStore, folder: Path, fault: str) -> None:
    checker = maintenance(folder)
    assert checker.check(DAVE, mends=False, is_deep=True) == []
    make: Callable[[Path], None] = FAULTS[fault]
    make(folder)
    found = checker.check(DAVE, mends=False, is_deep=True)
    assert [text for text in found if fault in text], found
    assert checker.check(DAVE, mends=False, is_deep=True) == found  # looking changes nothing
    checker.check(DAVE, mends=True, is_deep=True)
    checker.check(DAVE, mends=True, is_deep=True)  # a mended fault may have hidden another
    assert checker.check(DAVE, mends=False, is_deep=True) == []
    assert len(store.snapshot(DAVE)[1]) == 3
    assert store.usage(DAVE)[1] == 3


def test_a_damaged_index_is_said_and_made_anew(store: MessageStore, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "index.db")) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'meta'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / "index.db").open("r+b") as file:
        file.seek((page - 1) * size + 100)
        file.write(os.urandom(size - 100))
    checker = maintenance(folder)
    (text,) = checker.check(DAVE, mends=False, is_deep=False)
    assert text.startswith("the index is damaged: ")
    checker.check(DAVE, mends=True, is_deep=False)
    assert checker.check(DAVE, mends=False, is_deep=True) == []
    assert [message.uid for message in store.snapshot(DAVE)[1]] == [1, 2, 3]


def test_a_folder_that_no_mailbox_can_have_is_said(store: MessageStore, folder: Path) -> None:
    (folder / "Maildir" / ".no&way" / "cur").mkdir(parents=True)
    (text,) = maintenance(folder).check(DAVE, mends=True, is_deep=False)
    assert ".no&way" in text
