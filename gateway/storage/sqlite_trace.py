"""The trace on SQLite: events and the keys they are found by; retention by age and by size."""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.content.attachment import Attachment
from gateway.storage.sqlite import connect, prepare
from gateway.telemetry.recorder import Event

MAX_FOUND = 2000  # events one trace shows
_READ_STEP = 500  # events read at once
_PRUNE_STEP = 5000  # events removed in one transaction

MIGRATIONS = (
    """
    CREATE TABLE event(id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
    CREATE INDEX event_at ON event(at);
    CREATE TABLE key(value TEXT NOT NULL, event INTEGER NOT NULL, PRIMARY KEY(value, event)) WITHOUT ROWID;
    CREATE INDEX key_event ON key(event)
    """,
    # An event knows its keys, so none of them needs an index back.
    """
    ALTER TABLE event ADD COLUMN keys TEXT NOT NULL DEFAULT '[]';
    UPDATE event SET keys = (SELECT json_group_array(value) FROM key WHERE event = event.id);
    DROP INDEX key_event
    """,
)


@dataclass(frozen=True, slots=True)
class FoundEvent:
    at: float
    kind: str
    data: dict[str, Any]


class SqliteTrace:
    """A process's hands on trace.db; one connection for each thread's call, since calls are rare and batched."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def append(self, events: list[Event]) -> None:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            first = 1 + int(connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])
            connection.executemany(
                "INSERT INTO event(id, at, kind, data, keys) VALUES(?, ?, ?, ?, ?)",
                [
                    (row, event.at, event.kind, _json(event.data), _json(event.keys))
                    for row, event in enumerate(events, first)
                ],
            )
            connection.executemany(
                "INSERT OR IGNORE INTO key(value, event) VALUES(?, ?)",
                sorted((key, row) for row, event in enumerate(events, first) for key in event.keys if key),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise

    def find(self, wanted: str) -> list[FoundEvent]:
        """All events of whatever `wanted` names, and of the sessions and queue entries those events belong to."""
        connection = self._open()
        keys = [wanted, wanted.lower(), wanted.upper(), f"<{wanted}>"]
        rows: dict[int, FoundEvent] = {}
        pending, seen = list(dict.fromkeys(keys)), set(keys)
        while pending and len(rows) < MAX_FOUND:
            key = pending.pop()
            for row, at, kind, data in connection.execute(
                "SELECT id, at, kind, data FROM key JOIN event ON id = event WHERE value = ? ORDER BY id DESC LIMIT ?",
                [key, MAX_FOUND],
            ):
                if row in rows:
                    continue
                rows[row] = FoundEvent(at, kind, json.loads(data))
                for linked in _links(rows[row].data):
                    if linked not in seen:
                        seen.add(linked)
                        pending.append(linked)
        return sorted(rows.values(), key=lambda event: event.at)[:MAX_FOUND]

    def transactions(self, since: float) -> Iterator[FoundEvent]:
        """All recorded transactions from a time on, oldest first, read in parts."""
        connection, last = self._open(), 0
        while True:
            rows = connection.execute(
                "SELECT id, at, kind, data FROM event WHERE id > ? AND at >= ? AND kind = 'transaction'"
                " ORDER BY id LIMIT ?",
                [last, since, _READ_STEP],
            ).fetchall()
            for row, at, kind, data in rows:
                last = row
                yield FoundEvent(at, kind, json.loads(data))
            if len(rows) < _READ_STEP:
                return

    def forget(self, address: str) -> int:
        """Remove every event that names the address; returns how many."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        rows = [row for (row,) in connection.execute("SELECT event FROM key WHERE value = ?", [address.lower()])]
        _remove(connection, rows)
        connection.execute("COMMIT")
        return len(rows)

    def prune(self, keep_s: float, max_size: int) -> int:
        """Remove what is older than `keep_s`, then the oldest while the data takes more than `max_size` octets."""
        connection, removed = self._open(), 0
        while True:
            oldest = time.time() - keep_s
            rows = connection.execute("SELECT id FROM event WHERE at < ? ORDER BY at LIMIT ?", [oldest, _PRUNE_STEP])
            found = [row for (row,) in rows]
            if not found and self._size(connection) > max_size:
                rows = connection.execute("SELECT id FROM event ORDER BY at LIMIT ?", [_PRUNE_STEP])
                found = [row for (row,) in rows]
            if not found:
                return removed
            connection.execute("BEGIN IMMEDIATE")
            _remove(connection, found)
            connection.execute("COMMIT")
            removed += len(found)

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        pages, free, page = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, durable=False)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _links(data: dict[str, Any]) -> Iterator[str]:
    """Names of other events' that belong to this one."""
    yield from filter(None, (data.get(name) for name in ("queue_id", "session", "notice_id")))
    yield from (part["queue_id"] for part in data.get("parts", ()))


def _remove(connection: sqlite3.Connection, rows: list[int]) -> None:
    connection.executemany(
        "DELETE FROM key WHERE event = ?1"
        " AND value IN (SELECT value FROM json_each((SELECT keys FROM event WHERE id = ?1)))",
        [(row,) for row in rows],
    )
    connection.executemany("DELETE FROM event WHERE id = ?", [(row,) for row in rows])


def _json(value: object) -> str:
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> object:
    return value.told() if isinstance(value, Attachment) else str(value)
