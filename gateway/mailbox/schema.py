"""The tables of one user's index.db, and how an older one becomes them.

Numbers of mailboxes are never given twice: a session may still have a deleted one open.
What was expunged up to the modseq `forgotten` is not remembered any more. Flags are a number: bits 0 to 4 are the
system flags, the others keywords of the mailbox, by its table `keyword`.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX

SCHEMA_VERSION = 2
# A new user's mailboxes, and what each is for (RFC 6154).
MADE = (
    (INBOX, ""), ("Archive", "\\Archive"), ("Drafts", "\\Drafts"), ("Junk", "\\Junk"), ("Sent", "\\Sent"),
    ("Trash", "\\Trash"),
)  # fmt: skip

_BOX = """
CREATE TABLE box(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1, modseq INTEGER NOT NULL DEFAULT 1, special TEXT NOT NULL DEFAULT '',
    recent INTEGER NOT NULL DEFAULT 1, forgotten INTEGER NOT NULL DEFAULT 0);
CREATE TABLE msg(box INTEGER NOT NULL REFERENCES box(id), uid INTEGER NOT NULL, modseq INTEGER NOT NULL,
    flags INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, idate REAL NOT NULL, savedate REAL NOT NULL,
    file TEXT NOT NULL, emailid TEXT NOT NULL, PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE INDEX msg_modseq ON msg(box, modseq);
CREATE TABLE meta(id INTEGER PRIMARY KEY, box INTEGER NOT NULL, uid INTEGER NOT NULL, env BLOB NOT NULL,
    bs BLOB NOT NULL, body BLOB NOT NULL, hdr BLOB NOT NULL, parts BLOB NOT NULL, UNIQUE(box, uid));
CREATE TABLE keyword(box INTEGER NOT NULL, bit INTEGER NOT NULL, word TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY(box, bit), UNIQUE(box, word)) WITHOUT ROWID;
CREATE TABLE subscription(name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE last(validity INTEGER NOT NULL);
"""
_REST = """
CREATE TABLE expunged(box INTEGER NOT NULL, uid INTEGER NOT NULL, modseq INTEGER NOT NULL,
    PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE TABLE quota(octets INTEGER NOT NULL, messages INTEGER NOT NULL);
CREATE TABLE delivery(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
INSERT INTO quota VALUES(0, 0);
"""
_FROM_1 = (
    """
ALTER TABLE box RENAME TO box1;
ALTER TABLE msg RENAME TO msg1;
DROP TABLE meta;
DROP TABLE kw;
"""
    + _BOX
    + """
INSERT INTO box(id, name, uidvalidity, uidnext, modseq, special)
    SELECT id, name, uidvalidity, uidnext, modseq, special FROM box1;
INSERT INTO msg SELECT box, uid, modseq, 0, size, idate, savedate, file, emailid FROM msg1;
DROP TABLE msg1;
DROP TABLE box1;
"""
)


def open_index(path: Path) -> sqlite3.Connection:
    """Made or migrated if need be. Raises StoreError for one of a newer program."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    with _folder_lock(path.parent):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise StoreError(f"{path}: schema version {version} is newer than this program's {SCHEMA_VERSION}")
    if version < SCHEMA_VERSION:
        _prepare(connection)
    return connection


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


def _prepare(connection: sqlite3.Connection) -> None:
    """Another process may do the same at this moment: the version is looked at again under the lock."""
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    version = execute("PRAGMA user_version").fetchone()[0]
    if version < SCHEMA_VERSION:
        for statement in filter(str.strip, (_BOX + _REST if version == 0 else _FROM_1).split(";\n")):
            execute(statement)
        validity = max(int(time.time()), *(row[0] for row in execute("SELECT uidvalidity FROM box")), 0)
        for name, special in MADE:
            validity += 1
            execute("INSERT OR IGNORE INTO box(name, uidvalidity, special) VALUES(?, ?, ?)", [name, validity, special])
            execute("INSERT OR IGNORE INTO subscription VALUES(?)", [name])
        execute("INSERT INTO last VALUES(?)", [validity])
        execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    execute("COMMIT")


def is_io_error(error: BaseException) -> bool:
    """SQLite could not write or sync: whether the transaction stands is not known."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF == sqlite3.SQLITE_IOERR
