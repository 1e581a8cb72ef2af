"""The tables of one user's index.db, and how an older one becomes them.

Numbers of mailboxes are never given twice: a session may still have a deleted one open.
What was expunged up to the modseq `forgotten` is not remembered any more. Flags are a number: bits 0 to 4 are the
system flags, the others keywords of the mailbox, by its table `keyword`. looked, looked_new: times (ns) that the
folders cur and new had when all that is in them was known (`foreign`). doomed: files, by what stands before their
flags, that this program is about to remove. heading: what `headings` keeps, of messages below the mailbox's `headed`.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX

SCHEMA_VERSION = 4
# A new user's mailboxes, and what each is for (RFC 6154).
MADE = (
    (INBOX, ""), ("Archive", "\\Archive"), ("Drafts", "\\Drafts"), ("Junk", "\\Junk"), ("Sent", "\\Sent"),
    ("Trash", "\\Trash"),
)  # fmt: skip

_BOX = """
CREATE TABLE box(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1, modseq INTEGER NOT NULL DEFAULT 1, special TEXT NOT NULL DEFAULT '',
    recent INTEGER NOT NULL DEFAULT 1, forgotten INTEGER NOT NULL DEFAULT 0, looked INTEGER NOT NULL DEFAULT 0,
    looked_new INTEGER NOT NULL DEFAULT 0, headed INTEGER NOT NULL DEFAULT 1);
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
CREATE TABLE doomed(box INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY(box, file)) WITHOUT ROWID;
"""
_HEADING = """
CREATE TABLE heading(box INTEGER NOT NULL, uid INTEGER NOT NULL, is_whole INTEGER NOT NULL, subject BLOB, sender BLOB,
    recipient BLOB, cc BLOB, bcc BLOB, PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE INDEX heading_doubtful ON heading(box, uid) WHERE NOT is_whole;
"""
_REST = """
CREATE TABLE expunged(box INTEGER NOT NULL, uid INTEGER NOT NULL, modseq INTEGER NOT NULL,
    PRIMARY KEY(box, uid)) WITHOUT ROWID;
CREATE TABLE quota(octets INTEGER NOT NULL, messages INTEGER NOT NULL, warned INTEGER NOT NULL DEFAULT 0);
CREATE TABLE delivery(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
INSERT INTO quota(octets, messages) VALUES(0, 0);
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
ALTER TABLE quota ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
"""
)
_FROM_2 = """
ALTER TABLE box ADD COLUMN looked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE box ADD COLUMN looked_new INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quota ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
CREATE TABLE doomed(box INTEGER NOT NULL, file TEXT NOT NULL, PRIMARY KEY(box, file)) WITHOUT ROWID;
"""
_FROM_3 = "ALTER TABLE box ADD COLUMN headed INTEGER NOT NULL DEFAULT 1;" + _HEADING
_STEPS = {0: _BOX + _HEADING + _REST, 1: _FROM_1 + _HEADING, 2: _FROM_2 + _FROM_3, 3: _FROM_3}


class IndexTooNew(StoreError):
    """A newer program made it. For operators: the text names the file."""


def open_index(path: Path, first_id: int = 0, *, is_alone: bool = False) -> sqlite3.Connection:
    """Made or migrated if need be. first_id: above which a new one numbers its mailboxes; 0: by the time. is_alone: who
    calls has the folder's lock. Raises IndexTooNew.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    try:
        with nullcontext() if is_alone else folder_lock(path.parent):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise IndexTooNew(f"{path}: schema version {version} is newer than this program's {SCHEMA_VERSION}")
        if version < SCHEMA_VERSION:
            _prepare(connection, first_id)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """While one process turns a new file to WAL, SQLite answers another's wish for the same with "database is locked"
    at once, whatever the time-out: they take turns."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection, first_id: int) -> None:
    """Another process may do the same at this moment: the version is looked at again under the lock."""
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    version = execute("PRAGMA user_version").fetchone()[0]
    if version < SCHEMA_VERSION:
        for statement in filter(str.strip, _STEPS[version].split(";\n")):
            execute(statement)
        if version < 2:
            _make_boxes(connection, first_id)
        execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    execute("COMMIT")


def _make_boxes(connection: sqlite3.Connection, first_id: int) -> None:
    execute = connection.execute
    now = int(time.time())
    if execute("SELECT seq FROM sqlite_sequence WHERE name = 'box'").fetchone() is None:
        execute(
            "INSERT INTO sqlite_sequence VALUES('box', ?)", [first_id or now]
        )  # an index made anew gives other numbers
    validity = max(now, *(row[0] for row in execute("SELECT uidvalidity FROM box")), 0)
    for name, special in MADE:
        validity += 1
        execute("INSERT OR IGNORE INTO box(name, uidvalidity, special) VALUES(?, ?, ?)", [name, validity, special])
        execute("INSERT OR IGNORE INTO subscription VALUES(?)", [name])
    execute("INSERT INTO last VALUES(?)", [validity])


def is_io_error(error: BaseException) -> bool:
    """SQLite could not write or sync: whether the transaction stands is not known."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF == sqlite3.SQLITE_IOERR


_ODD = ("Could not decode to UTF-8", "no such table", "no such column")


def is_corrupt(error: BaseException) -> bool:
    """The file is no index any more: no wish can be granted before it is rebuilt."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(_ODD)
