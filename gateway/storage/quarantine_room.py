"""How much may be in quarantine. What would be kept where there is no room is told to come again: nothing is lost."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StorageFull
from gateway.queue.store import NewMessage
from gateway.storage.queue_tables import QUARANTINED
from gateway.storage.sqlite import Database

_TOTAL_S = 5.0  # that the size of the whole quarantine is believed


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """Octets: in all, and for one recipient."""

    size: int
    size_by_recipient: int


class QuarantineRoom:
    """`queue.intake.Room`. A limit is passed by as much as several processes take in at the same time."""

    def __init__(self, path: Path, limits: QuarantineLimits) -> None:
        self._database = Database(path)
        self._limits = limits
        self._total, self._looked = 0, float("-inf")

    async def check(self, messages: Sequence[NewMessage]) -> None:
        if messages:
            await asyncio.to_thread(self._database.read, lambda connection: self._check(connection, messages))

    def _check(self, connection: sqlite3.Connection, messages: Sequence[NewMessage]) -> None:
        """One at a time, as the database reads."""
        wanted: Counter[str] = Counter()
        for message in messages:
            for to in message.recipients:
                wanted[str(to.forward_path)] += message.blob.size
        size = sum({id(message.blob): message.blob.size for message in messages}.values())
        if self._size(connection) + size > self._limits.size:
            raise StorageFull("quarantine is full (quarantine.max_size)")
        for recipient, octets in wanted.items():
            if size_for(connection, recipient) + octets > self._limits.size_by_recipient:
                raise StorageFull(f"quarantine of <{recipient}> is full (quarantine.max_size_by_recipient)")
        self._total += size

    def _size(self, connection: sqlite3.Connection) -> int:
        if time.monotonic() - self._looked > _TOTAL_S:
            self._total, self._looked = size_of(connection), time.monotonic()
        return self._total

    def close(self) -> None:
        self._database.close()


def size_of(connection: sqlite3.Connection) -> int:
    """Octets of all that is quarantined, each blob once."""
    row = connection.execute(
        "SELECT coalesce(sum(size), 0) FROM blob WHERE id IN (SELECT blob FROM recipient"
        f" JOIN message ON message.id = message WHERE state = {QUARANTINED})"
    ).fetchone()
    return int(row[0])


def size_for(connection: sqlite3.Connection, recipient: str) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(size), 0) FROM recipient JOIN message ON message.id = message JOIN blob ON blob.id = blob"
        f" WHERE state = {QUARANTINED} AND forward_path = ? COLLATE NOCASE",
        [recipient],
    ).fetchone()
    return int(row[0])
