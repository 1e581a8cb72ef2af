"""Keys of DKIM signatures, beside the accounts: who may read the one may read the other."""

import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.senderauth.signing import SigningKey
from gateway.storage.sqlite import change_once, connect, prepare, write_once
from gateway.storage.sqlite_accounts import MIGRATIONS

FRESH_S = 0.5  # so long what was read holds: a look for each message would cost it a turn at the interpreter


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
        self._looked = -FRESH_S
        self._active: dict[str, tuple[SigningKey, ...]] = {}

    def active(self, domain: str) -> tuple[SigningKey, ...]:
        self._refresh()
        return self._active.get(domain, ())

    @property
    def are_there(self) -> bool:
        self._refresh()
        return bool(self._active)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < FRESH_S:
            return
        self._looked = now
        version = self._reader.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._version = version
        active: dict[str, tuple[SigningKey, ...]] = {}
        for each in self.keys():
            if each.state is KeyState.ACTIVE:
                active[each.key.domain] = (*active.get(each.key.domain, ()), each.key)
        self._active = active

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

        write_once(self._path, job)
        self._version, self._looked = -1, -FRESH_S

    def delete(self, key: SigningKey) -> None:
        self._change("DELETE FROM dkim_key WHERE domain = ? AND selector = ?", [key.domain, key.selector])

    def _change(self, sql: str, values: list[object]) -> bool:
        changed = change_once(self._path, sql, values)
        self._version, self._looked = -1, -FRESH_S
        return changed

    def close(self) -> None:
        self._reader.close()
