"""What checks remember from one connection to the next, for all processes: state.db. Losing it costs mail a delay."""

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from gateway.checks.greylist import Seen
from gateway.checks.reputation import Reputation
from gateway.storage.gather import Gatherer
from gateway.storage.sqlite import Writer, connect, prepare

MIGRATIONS = (
    """
    CREATE TABLE greylist(
        key TEXT PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, passed INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX greylist_last ON greylist(last)
    """,
    """
    CREATE TABLE sender(address TEXT PRIMARY KEY, last REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX sender_last ON sender(last);
    CREATE TABLE probe(address TEXT PRIMARY KEY, found INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX probe_at ON probe(at)
    """,
    """
    CREATE TABLE reputation(
        key TEXT PRIMARY KEY, good REAL NOT NULL, bad REAL NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX reputation_at ON reputation(at)
    """,
    """
    CREATE TABLE usage(
        user TEXT NOT NULL, hour INTEGER NOT NULL, recipients INTEGER NOT NULL, PRIMARY KEY(user, hour)) WITHOUT ROWID;
    CREATE INDEX usage_hour ON usage(hour)
    """,
)
_PRUNE = 10_000  # rows of a table removed in one transaction
_PRUNES = (
    "DELETE FROM greylist WHERE key IN (SELECT key FROM greylist WHERE last < ? LIMIT ?)",
    "DELETE FROM sender WHERE address IN (SELECT address FROM sender WHERE last < ? LIMIT ?)",
    "DELETE FROM probe WHERE address IN (SELECT address FROM probe WHERE at < ? LIMIT ?)",
    "DELETE FROM reputation WHERE key IN (SELECT key FROM reputation WHERE at < ? LIMIT ?)",
    "DELETE FROM usage WHERE (user, hour) IN (SELECT user, hour FROM usage WHERE hour < ? / 3600 LIMIT ?)",
)
_PUT_GREYLIST = "INSERT OR REPLACE INTO greylist(key, first, last, passed) VALUES(?, ?, ?, ?)"
_PUT_SENDER = "INSERT OR REPLACE INTO sender(address, last) VALUES(?, ?)"
_PUT_REPUTATION = "INSERT OR REPLACE INTO reputation(key, good, bad, at) VALUES(?, ?, ?, ?)"
_ADD_REPUTATION = "add to a reputation"  # read, decayed and written in one go
_ADD_USAGE = (
    "INSERT INTO usage(user, hour, recipients) VALUES(?, ?, ?)"
    " ON CONFLICT(user, hour) DO UPDATE SET recipients = recipients + excluded.recipients"
)
_PUT_PROBE = "INSERT OR REPLACE INTO probe(address, found, at) VALUES(?, ?, ?)"


@dataclass(frozen=True, slots=True)
class KeepTimes:
    """Seconds that each kind of memory lasts without news."""

    greylist_s: float
    senders_s: float
    probes_s: float
    reputations_s: float
    usage_s: float


class SqliteState:
    """One event loop's hands on it; nothing blocks the loop."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._path = path
        self._writer = Writer(path, durable=False)
        self._puts: Gatherer[tuple[str, list[object]]] = Gatherer(self._writer, _put)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._reader: sqlite3.Connection | None = None

    async def find(self, key: str) -> Seen | None:
        row = await self._row("SELECT first, last, passed FROM greylist WHERE key = ?", key)
        return None if row is None else Seen(float(row[0]), float(row[1]), bool(row[2]))

    async def put(self, key: str, seen: Seen) -> None:
        await self._puts.add((_PUT_GREYLIST, [key, seen.first, seen.last, seen.passed]))

    async def has_seen(self, sender: str) -> bool:
        return await self._row("SELECT 1 FROM sender WHERE address = ?", sender) is not None

    async def see(self, sender: str) -> None:
        await self._puts.add((_PUT_SENDER, [sender, time.time()]))

    async def probed(self, address: str) -> tuple[bool, float] | None:
        row = await self._row("SELECT found, at FROM probe WHERE address = ?", address)
        return None if row is None else (bool(row[0]), float(row[1]))

    async def put_probed(self, address: str, exists: bool) -> None:
        await self._puts.add((_PUT_PROBE, [address, exists, time.time()]))

    async def reputation(self, key: str) -> Reputation:
        row = await self._row("SELECT good, bad, at FROM reputation WHERE key = ?", key)
        return Reputation() if row is None else Reputation(*map(float, row))

    async def add_reputation(self, key: str, half_life_s: float, *, is_good: bool) -> None:
        await self._puts.add((_ADD_REPUTATION, [key, half_life_s, is_good]))

    async def busiest_hour(self, user: str, since: int, before: int) -> int:
        sql = "SELECT coalesce(max(recipients), 0) FROM usage WHERE user = ? AND hour >= ? AND hour < ?"
        row = await self._row(sql, user.lower(), since, before)
        return 0 if row is None else int(row[0])

    async def add_usage(self, user: str, hour: int, recipients: int) -> None:
        await self._puts.add((_ADD_USAGE, [user.lower(), hour, recipients]))

    async def _row(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._look, sql, values)

    def _look(self, sql: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        if self._reader is None:
            self._reader = connect(self._path, durable=False)
        found: tuple[Any, ...] | None = self._reader.execute(sql, values).fetchone()
        return found

    def prune(self, keep: KeepTimes) -> int:
        """Forget what is older than that. Blocking."""
        now = time.time()
        return self._writer.call(
            lambda connection: sum(
                connection.execute(sql, [now - seconds, _PRUNE]).rowcount
                for sql, seconds in zip(_PRUNES, astuple(keep), strict=True)
            )
        )

    def close(self) -> None:
        self._writer.stop()
        self._pool.shutdown()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _put(connection: sqlite3.Connection, items: list[tuple[str, list[object]]]) -> None:
    for sql, values in items:
        if sql is _ADD_REPUTATION:
            _add_reputation(connection, *values)
        else:
            connection.execute(sql, values)


def _add_reputation(connection: sqlite3.Connection, key: Any, half_life_s: Any, is_good: Any) -> None:
    row = connection.execute("SELECT good, bad, at FROM reputation WHERE key = ?", [key]).fetchone()
    before = Reputation() if row is None else Reputation(*row)
    found = before.at_time(time.time(), half_life_s).with_one(is_good=is_good)
    connection.execute(_PUT_REPUTATION, [key, found.good, found.bad, found.at])
