"""One user's index.db: mailboxes with UIDVALIDITY and UIDNEXT, messages with UIDs, and deliveries seen lately.

The tables are those the IMAP server will use; a UID once given is never given to another message.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StoreError

SCHEMA_VERSION = 1
MAX_DELIVERIES = 10_000  # delivery ids remembered, so that a retry after a crash makes no duplicate

_SCHEMA = """
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
INSERT INTO quota VALUES(0, 0);
"""


def is_io_error(error: BaseException) -> bool:
    """SQLite could not write or sync: whether the transaction stands is not known."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF == sqlite3.SQLITE_IOERR


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """While one process turns a new file to WAL, SQLite answers another's wish for the same with "database is locked"
    at once, whatever the time-out: they take turns."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class StoredMessage:
    uid: int
    size: int
    file: str
    internal_date: float


class Index:
    """A connection to one index. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
        execute = self._connection.execute
        with _folder_lock(path.parent):
            execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise StoreError(f"{path}: schema version {version} is newer than this program's {SCHEMA_VERSION}")
        if version == 0:
            self._create()

    def _create(self) -> None:
        # Another process may do the same at this moment: the version is looked at again under the lock.
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        if execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in filter(str.strip, _SCHEMA.split(";\n")):
                execute(statement)
            validity = int(time.time())
            execute("INSERT INTO box(name, uidvalidity, uidnext, modseq) VALUES('INBOX', ?, 1, 1)", [validity])
            execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        execute("COMMIT")

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def has_delivery(self, delivery_id: str) -> bool:
        row = self._connection.execute("SELECT 1 FROM delivery WHERE id = ?", [delivery_id]).fetchone()
        return row is not None

    def next_uid(self, box: str) -> int:
        """Take a UID; within begin and commit."""
        row = self._connection.execute(
            "UPDATE box SET uidnext = uidnext + 1, modseq = modseq + 1 WHERE name = ? RETURNING uidnext - 1", [box]
        ).fetchone()
        if row is None:
            raise StoreError(f"no mailbox {box}")
        return int(row[0])

    def add(self, box: str, message: StoredMessage, delivery_id: str) -> None:
        """Within begin and commit."""
        execute = self._connection.execute
        execute(
            "INSERT INTO msg(box, uid, modseq, size, idate, savedate, file, emailid)"
            " SELECT id, ?, modseq, ?, ?, ?, ?, ? FROM box WHERE name = ?",
            [message.uid, message.size, message.internal_date, time.time(), message.file, delivery_id, box],
        )
        number = execute("INSERT INTO delivery(id) VALUES(?)", [delivery_id]).lastrowid or 0
        execute("DELETE FROM delivery WHERE number <= ?", [number - MAX_DELIVERIES])
        execute("UPDATE quota SET octets = octets + ?, messages = messages + 1", [message.size])

    def uidvalidity(self, box: str) -> int:
        row = self._connection.execute("SELECT uidvalidity FROM box WHERE name = ?", [box]).fetchone()
        if row is None:
            raise StoreError(f"no mailbox {box}")
        return int(row[0])

    def messages(self, box: str) -> list[StoredMessage]:
        return [
            StoredMessage(*row)
            for row in self._connection.execute(
                "SELECT uid, size, file, idate FROM msg WHERE box = (SELECT id FROM box WHERE name = ?) ORDER BY uid",
                [box],
            )
        ]

    def expunge(self, box: str, uids: list[int]) -> list[str]:
        """Remove messages; returns the files that may go once this has returned."""
        execute = self._connection.execute
        files: list[str] = []
        self.begin()
        try:
            (box_id,) = execute("SELECT id FROM box WHERE name = ?", [box]).fetchone()
            for uid in uids:
                row = execute(
                    "DELETE FROM msg WHERE box = ? AND uid = ? RETURNING file, size", [box_id, uid]
                ).fetchone()
                if row is None:
                    continue
                files.append(str(row[0]))
                (modseq,) = execute(
                    "UPDATE box SET modseq = modseq + 1 WHERE id = ? RETURNING modseq", [box_id]
                ).fetchone()
                execute("INSERT OR REPLACE INTO expunged VALUES(?, ?, ?)", [box_id, uid, modseq])
                execute("UPDATE quota SET octets = octets - ?, messages = messages - 1", [row[1]])
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return files

    def close(self) -> None:
        self._connection.close()
