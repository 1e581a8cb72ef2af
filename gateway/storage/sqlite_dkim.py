"""Keys of DKIM signatures, beside the accounts: who may read the one may read the other."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.senderauth.signing import SigningKey
from gateway.storage.sqlite import Writer, connect, prepare
from gateway.storage.sqlite_accounts import MIGRATIONS

MAX_KNOWN = 10_000  # domains whose keys are remembered, or that they have none


class KeyState(StrEnum):
    WAITING = "waiting"  # for its record to be seen in DNS
    ACTIVE = "active"  # signs
    RETIRED = "retired"  # signs no more; what it signed is still on its way


@dataclass(frozen=True, slots=True)
class KeptKey:
    """changed: when it came into its state, in seconds since the epoch."""

    key: SigningKey
    state: KeyState
    changed: float


class SqliteDkimKeys:
    """`senderauth.signing.SigningKeys`, and the changes of the command line."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._path = path
        self._reader = connect(path)
        self._version = -1
        self._active: dict[str, tuple[SigningKey, ...]] = {}

    def active(self, domain: str) -> tuple[SigningKey, ...]:
        version = self._reader.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._active) > MAX_KNOWN:
            self._version = version
            self._active.clear()
        if domain not in self._active:
            kept = (each.key for each in self.keys(domain) if each.state is KeyState.ACTIVE)
            self._active[domain] = tuple(kept)
        return self._active[domain]

    def keys(self, domain: str = "") -> list[KeptKey]:
        """All of the domain, or of every one, the oldest first."""
        rows = self._reader.execute(
            "SELECT domain, selector, private, state, changed FROM dkim_key WHERE ?1 IN ('', domain)"
            " ORDER BY domain, created",
            [domain],
        )
        return [KeptKey(SigningKey(*row[:3]), KeyState(row[3]), row[4]) for row in rows]

    def add(self, key: SigningKey) -> bool:
        """False: there is one of that selector already."""
        now = time.time()
        return self._change(
            "INSERT OR IGNORE INTO dkim_key(domain, selector, private, state, created, changed)"
            " VALUES(?, ?, ?, ?, ?, ?)",
            [key.domain, key.selector, key.private, KeyState.WAITING.value, now, now],
        )

    def set_states(self, changes: list[tuple[SigningKey, KeyState]]) -> None:
        """All at once: no message is signed by both or by none."""

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE dkim_key SET state = ?, changed = ? WHERE domain = ? AND selector = ?",
                [(state.value, time.time(), key.domain, key.selector) for key, state in changes],
            )

        self._run(job)

    def delete(self, key: SigningKey) -> None:
        self._change("DELETE FROM dkim_key WHERE domain = ? AND selector = ?", [key.domain, key.selector])

    def _change(self, sql: str, values: list[object]) -> bool:
        changed: list[int] = []
        self._run(lambda connection: changed.append(connection.execute(sql, values).rowcount))
        return changed[0] > 0

    def _run(self, job: Callable[[sqlite3.Connection], None]) -> None:
        writer = Writer(self._path)
        try:
            writer.call(job)
        finally:
            writer.stop()
        self._version = -1

    def close(self) -> None:
        self._reader.close()
