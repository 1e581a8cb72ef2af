"""The queue's tables on SQLite, and what both its users do with a row: the runner's store and the desk of people.

message, blob and recipient: one row a recipient that is still to go. Several messages may share one blob.
"""

import json
import sqlite3
import time
from collections.abc import Sequence

from gateway.core.address import path_or_null
from gateway.core.verdict import Protection
from gateway.delivery.routes import destination_of
from gateway.message.blob import Blob, FileBlob, MemoryBlob
from gateway.queue.store import Filter, NewMessage, QueuedMessage, State
from gateway.storage.spool import Spool

READY, ACTIVE, HELD, CORRUPT, QUARANTINED = range(5)
STATES = (State.READY, State.ACTIVE, State.HELD, State.CORRUPT, State.QUARANTINED)
# What is written together: for each blob the messages over it, and the name of its file, if it has one.
Arrival = Sequence[tuple[Sequence[NewMessage], str | None]]
BODIES = frozenset({"", "7BIT", "8BITMIME", "BINARYMIME"})
MAX_ROWS = 100  # in one statement
KEPT_BY_RULE = (
    f"state IN ({HELD}, {QUARANTINED}) AND json_valid(info) AND coalesce(json_extract(info, '$.kept_by'), '') <> ''"
)

MIGRATIONS = (
    """
    CREATE TABLE blob(id INTEGER PRIMARY KEY, size INTEGER NOT NULL, octets BLOB, name TEXT);
    CREATE TABLE message(
        id INTEGER PRIMARY KEY, queue_id TEXT NOT NULL UNIQUE, created REAL NOT NULL, expires REAL NOT NULL,
        reverse_path TEXT NOT NULL, body TEXT NOT NULL, smtputf8 INTEGER NOT NULL, ret TEXT NOT NULL,
        envid TEXT NOT NULL, info TEXT NOT NULL, header BLOB NOT NULL, offset INTEGER NOT NULL,
        blob INTEGER NOT NULL REFERENCES blob(id));
    CREATE INDEX message_expires ON message(expires);
    CREATE INDEX message_created ON message(created);
    CREATE INDEX message_blob ON message(blob);
    CREATE TABLE recipient(
        id INTEGER PRIMARY KEY, message INTEGER NOT NULL REFERENCES message(id), forward_path TEXT NOT NULL,
        orcpt TEXT NOT NULL, notify TEXT NOT NULL, destination TEXT NOT NULL, state INTEGER NOT NULL,
        due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, warned INTEGER NOT NULL DEFAULT 0,
        last_reply TEXT NOT NULL DEFAULT '', owner TEXT, boot TEXT, token INTEGER, deadline REAL);
    CREATE INDEX recipient_message ON recipient(message);
    CREATE INDEX recipient_due ON recipient(due, destination) WHERE state = 0;
    CREATE INDEX recipient_destination ON recipient(destination) WHERE state = 0;
    CREATE INDEX recipient_leased ON recipient(owner) WHERE state = 1
    """,
    "ALTER TABLE message ADD COLUMN protection TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE recipient ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX recipient_quarantined ON recipient(forward_path COLLATE NOCASE) WHERE state = 4;
    CREATE TABLE release(
        recipient INTEGER PRIMARY KEY REFERENCES recipient(id) ON DELETE CASCADE, asked_by TEXT NOT NULL,
        due REAL NOT NULL, is_despite INTEGER NOT NULL);
    CREATE TABLE used_link(link BLOB PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE done(what TEXT PRIMARY KEY, day TEXT NOT NULL) WITHOUT ROWID
    """,
)


def insert_messages(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
    """One statement a table: each statement costs its thread a turn at the interpreter."""
    blob = _last(connection, "blob")
    row = _last(connection, "message")
    blobs: list[object] = []
    rows: list[object] = []
    recipients: list[object] = []
    for messages, name in (over_one for arrival in arrivals for over_one in arrival):
        blob += 1
        body = messages[0].blob
        blobs += (blob, body.size, body.octets if isinstance(body, MemoryBlob) else None, name)
        for message in messages:
            row += 1
            rows += (
                row, message.queue_id, message.created, message.expires, str(message.reverse_path), message.body,
                message.smtputf8, message.ret, message.envid, json.dumps(dict(message.info)), message.header,
                message.offset, blob, message.protection.value,
            )  # fmt: skip
            state = STATES.index(message.state)
            for to in message.recipients:
                recipients += (
                    row, str(to.forward_path), to.orcpt, ",".join(sorted(to.notify)),
                    destination_of(message.route, to.forward_path.domain), message.created, state,
                )  # fmt: skip
    _insert_rows(connection, "blob(id, size, octets, name)", "(?, ?, ?, ?)", blobs)
    _insert_rows(
        connection,
        "message(id, queue_id, created, expires, reverse_path, body, smtputf8, ret, envid, info, header, offset, blob,"
        " protection)",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    _insert_rows(
        connection,
        "recipient(message, forward_path, orcpt, notify, destination, due, state)",
        "(?, ?, ?, ?, ?, ?, ?)",
        recipients,
    )


def readmit(
    connection: sqlite3.Connection, kept_id: str, rows: Sequence[int], message: NewMessage
) -> tuple[bool, list[str]]:
    """`QueueStore.readmit`; and the files to remove after the commit."""
    marks = ", ".join("?" * len(rows))
    found = connection.execute(
        "SELECT recipient.id, message FROM recipient JOIN message ON message.id = message"
        f" WHERE queue_id = ? AND state IN ({HELD}, {QUARANTINED}) AND recipient.id IN ({marks})",
        [kept_id, *rows],
    ).fetchall()
    if not found:
        return False, []
    new = _last(connection, "message") + 1
    connection.execute(
        "INSERT INTO message(id, queue_id, created, expires, reverse_path, body, smtputf8, ret, envid, info, header,"
        " offset, blob, protection) SELECT ?, ?, ?, ?, reverse_path, body, smtputf8, ret, envid, ?, ?, offset, blob,"
        " protection FROM message WHERE id = ?",
        [
            new, message.queue_id, message.created, message.expires, json.dumps(dict(message.info)), message.header,
            found[0][1],
        ],
    )  # fmt: skip
    connection.executemany(
        f"UPDATE recipient SET message = ?, state = {READY}, due = ?, attempts = 0, warned = 0, last_reply = ''"
        " WHERE id = ?",
        [(new, message.created, row) for row, _ in found],
    )
    connection.executemany("DELETE FROM release WHERE recipient = ?", [(row,) for row, _ in found])
    return True, drop_if_done(connection, found[0][1])


def _last(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0])


def _insert_rows(connection: sqlite3.Connection, into: str, marks: str, values: list[object]) -> None:
    """values: those of all rows, one after the other."""
    width = marks.count("?")
    for start in range(0, len(values), MAX_ROWS * width):
        part = values[start : start + MAX_ROWS * width]
        connection.execute(f"INSERT INTO {into} VALUES {', '.join([marks] * (len(part) // width))}", part)


def load_message(connection: sqlite3.Connection, spool: Spool, row: int) -> QueuedMessage:
    """Raises ValueError, TypeError or OSError for a row or a file that cannot be a message."""
    found = connection.execute(
        "SELECT queue_id, created, expires, reverse_path, header, offset, body, smtputf8, ret, envid, protection, size,"
        " octets, name FROM message JOIN blob ON blob.id = message.blob WHERE message.id = ?",
        [row],
    ).fetchone()
    (queue_id, created, expires, reverse_path, header, offset, body, smtputf8, ret, envid) = found[:10]
    protection, size, octets, name = found[10:]
    _check_types(
        (str, queue_id, reverse_path, body, ret, envid),
        (float, created, expires),
        (int, offset, size),
        (bytes, header),
    )
    blob: Blob
    if name is None:
        _check_types((bytes, octets))
        blob = MemoryBlob(octets)
    else:
        blob = FileBlob(spool.path_of(name), spool.path_of(name).stat().st_size)
    if blob.size != size:
        raise ValueError(f"message of {size} octets has only {blob.size}")
    if not 0 <= offset <= size or body not in BODIES:
        raise ValueError("offset or body out of range")
    return QueuedMessage(
        queue_id,
        created,
        expires,
        path_or_null(reverse_path),
        header,
        blob,
        offset,
        body,
        bool(smtputf8),
        ret,
        envid,
        Protection(protection),
    )


def _check_types(*groups: tuple[object, ...]) -> None:
    """Each group a type and the values that must be of it: SQLite keeps what it is given, a damaged file anything."""
    for kind, *values in groups:
        if not all(type(value) is kind for value in values):
            raise TypeError(f"a value that is no {getattr(kind, '__name__', kind)}")


def drop_if_done(connection: sqlite3.Connection, message: int) -> list[str]:
    """Delete the message and its blob when no recipient is left; returns the file to remove after the commit."""
    if connection.execute("SELECT 1 FROM recipient WHERE message = ? LIMIT 1", [message]).fetchone():
        return []
    blob = connection.execute("SELECT blob FROM message WHERE id = ?", [message]).fetchone()[0]
    connection.execute("DELETE FROM message WHERE id = ?", [message])
    if connection.execute("SELECT 1 FROM message WHERE blob = ? LIMIT 1", [blob]).fetchone():
        return []
    name = connection.execute("SELECT name FROM blob WHERE id = ?", [blob]).fetchone()[0]
    connection.execute("DELETE FROM blob WHERE id = ?", [blob])
    return [] if name is None else [name]


def conditions_of(wanted: Filter) -> tuple[str, list[object]]:
    """What is quarantined is found only when asked for."""
    conditions, values = ["1 = 1"], []  # type: tuple[list[str], list[object]]
    if wanted.state is None:
        conditions.append(f"state <> {QUARANTINED}")
    for sql, value in (
        ("queue_id = ?", wanted.queue_id.upper()),
        ("destination = ?", wanted.domain.lower()),
        ("reverse_path = ? COLLATE NOCASE", wanted.sender),
        ("forward_path = ? COLLATE NOCASE", wanted.recipient),
        ("json_valid(info) AND json_extract(info, '$.user') = ? COLLATE NOCASE", wanted.user),
    ):
        if value:
            conditions.append(sql)
            values.append("" if value == "<>" else value)
    if wanted.older_than is not None:
        conditions.append("created <= ?")
        values.append(time.time() - wanted.older_than)
    if wanted.state is not None:
        conditions.append("state = ?")
        values.append(STATES.index(wanted.state))
    return " AND ".join(conditions), values


def info_of(text: object) -> dict[str, str]:
    """Whatever a damaged row holds."""
    try:
        return {str(key): str(value) for key, value in json.loads(str(text)).items()}
    except (ValueError, AttributeError):
        return {}
