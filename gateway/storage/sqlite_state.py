"""What checks remember from one connection to the next, for all processes: state.db. Losing it costs mail a delay."""

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.checks.greylist import Seen
from gateway.storage.gather import Gatherer
from gateway.storage.sqlite import Writer, connect, prepare

MIGRATIONS = (
    """
    CREATE TABLE greylist(
        key TEXT PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, passed INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX greylist_last ON greylist(last)
    """,
)
_PRUNE = 10_000  # rows removed in one transaction


class SqliteState:
    """One event loop's hands on it; nothing blocks the loop."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._path = path
        self._writer = Writer(path, durable=False)
        self._puts: Gatherer[tuple[str, Seen]] = Gatherer(self._writer, _put)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._reader: sqlite3.Connection | None = None

    async def find(self, key: str) -> Seen | None:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._find, key)

    def _find(self, key: str) -> Seen | None:
        if self._reader is None:
            self._reader = connect(self._path, durable=False)
        row = self._reader.execute("SELECT first, last, passed FROM greylist WHERE key = ?", [key]).fetchone()
        return None if row is None else Seen(float(row[0]), float(row[1]), bool(row[2]))

    async def put(self, key: str, seen: Seen) -> None:
        await self._puts.add((key, seen))

    def prune(self, keep_s: float) -> int:
        """Forget who has not come for so long. Blocking."""
        sql = "DELETE FROM greylist WHERE key IN (SELECT key FROM greylist WHERE last < ? LIMIT ?)"
        return self._writer.call(lambda connection: connection.execute(sql, [time.time() - keep_s, _PRUNE]).rowcount)

    def close(self) -> None:
        self._writer.stop()
        self._pool.shutdown()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _put(connection: sqlite3.Connection, items: list[tuple[str, Seen]]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO greylist(key, first, last, passed) VALUES(?, ?, ?, ?)",
        [(key, seen.first, seen.last, seen.passed) for key, seen in items],
    )
