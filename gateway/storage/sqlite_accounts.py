"""Accounts and aliases on SQLite. Reads are cached and dropped when another process has written (PRAGMA
data_version).
"""

import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from gateway.accounts.directory import Account
from gateway.storage.sqlite import change_once, connect, prepare, write_once

CACHE_SIZE = 20_000

MIGRATIONS = (
    """
    CREATE TABLE account(
        address TEXT PRIMARY KEY, password_hash TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL);
    CREATE TABLE alias(address TEXT NOT NULL, target TEXT NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY(address, position))
    """,
    """
    CREATE TABLE dkim_key(
        domain TEXT NOT NULL, selector TEXT NOT NULL, private BLOB NOT NULL, state TEXT NOT NULL,
        created REAL NOT NULL, changed REAL NOT NULL, PRIMARY KEY(domain, selector))
    """,
    "CREATE TABLE secret(name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    """
    CREATE TABLE choice(
        recipient TEXT NOT NULL, sender TEXT NOT NULL, is_welcome INTEGER NOT NULL, at REAL NOT NULL,
        PRIMARY KEY(recipient, sender)) WITHOUT ROWID
    """,
    "ALTER TABLE account ADD COLUMN quota INTEGER",
)
SECRET_OCTETS = 32
_ACCOUNT = "address, password_hash, disabled, created, quota"


class SqliteAccounts:
    """`accounts.directory.AccountStore`, and the changes the command line makes."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._path = path
        self._reader = connect(path)
        self._lock = threading.Lock()  # asked from the event loop and from delivery threads
        self._version = -1
        self._accounts: dict[str, Account | None] = {}
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._choices: dict[str, dict[str, bool]] = {}

    # --- reading --------------------------------------------------------------------------------------------------

    def account(self, address: str) -> Account | None:
        with self._lock:
            self._refresh()
            if address not in self._accounts:
                row = self._reader.execute(
                    f"SELECT {_ACCOUNT} FROM account WHERE address = ?",  # noqa: S608  # a constant
                    [address],
                ).fetchone()
                self._accounts[address] = None if row is None else _account(row)
            return self._accounts[address]

    def alias(self, address: str) -> tuple[str, ...]:
        with self._lock:
            self._refresh()
            if address not in self._aliases:
                rows = self._reader.execute("SELECT target FROM alias WHERE address = ? ORDER BY position", [address])
                self._aliases[address] = tuple(target for (target,) in rows)
            return self._aliases[address]

    def choices(self, recipient: str) -> Mapping[str, bool]:
        with self._lock:
            self._refresh()
            if recipient not in self._choices:
                rows = self._reader.execute("SELECT sender, is_welcome FROM choice WHERE recipient = ?", [recipient])
                self._choices[recipient] = {sender: bool(is_welcome) for sender, is_welcome in rows}
            return self._choices[recipient]

    def first_account(self, domain: str) -> str | None:
        row = self._reader.execute(
            "SELECT address FROM account WHERE disabled = 0"
            " ORDER BY substr(address, -length(?1) - 1) <> '@' || ?1, created, address LIMIT 1",
            [domain],
        ).fetchone()
        return None if row is None else str(row[0])

    def accounts(self) -> list[Account]:
        rows = self._reader.execute(f"SELECT {_ACCOUNT} FROM account ORDER BY address")  # noqa: S608  # a constant
        return [_account(row) for row in rows]

    def aliases(self) -> list[tuple[str, tuple[str, ...]]]:
        found: dict[str, tuple[str, ...]] = {}
        for address, target in self._reader.execute("SELECT address, target FROM alias ORDER BY address, position"):
            found[address] = (*found.get(address, ()), target)
        return list(found.items())

    def _refresh(self) -> None:
        version = self._reader.execute("PRAGMA data_version").fetchone()[0]
        size = len(self._accounts) + len(self._aliases) + len(self._choices)
        if version != self._version or size > CACHE_SIZE:
            self._version = version
            self._accounts.clear()
            self._aliases.clear()
            self._choices.clear()

    def secret(self, name: str) -> bytes:
        """Made at the first question, the same ever after."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO secret(name, value) VALUES(?, ?)", [name, secrets.token_bytes(SECRET_OCTETS)]
            )

        sql = "SELECT value FROM secret WHERE name = ?"
        row = self._reader.execute(sql, [name]).fetchone()
        if row is None:
            write_once(self._path, job)
            row = self._reader.execute(sql, [name]).fetchone()
        return bytes(row[0])

    # --- writing (the command line; a writer for the moment) ------------------------------------------------------

    def add(self, address: str, password_hash: str) -> bool:
        """False when the account exists already."""
        return self._change(
            "INSERT OR IGNORE INTO account(address, password_hash, created) VALUES(?, ?, ?)",
            [address, password_hash, time.time()],
        )

    def set_password(self, address: str, password_hash: str) -> bool:
        return self._change("UPDATE account SET password_hash = ? WHERE address = ?", [password_hash, address])

    def set_disabled(self, address: str, *, disabled: bool) -> bool:
        return self._change("UPDATE account SET disabled = ? WHERE address = ?", [disabled, address])

    def set_quota(self, address: str, octets: int | None) -> bool:
        """0: any amount; None: as configured for all."""
        return self._change("UPDATE account SET quota = ? WHERE address = ?", [octets, address])

    def delete(self, address: str) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM choice WHERE recipient = ?", [address])
            return connection.execute("DELETE FROM account WHERE address = ?", [address]).rowcount > 0

        changed = write_once(self._path, job)
        self._version = -1
        return changed

    def set_alias(self, address: str, targets: tuple[str, ...]) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM alias WHERE address = ?", [address])
            connection.executemany(
                "INSERT INTO alias(address, target, position) VALUES(?, ?, ?)",
                [(address, target, position) for position, target in enumerate(targets)],
            )

        write_once(self._path, job)
        self._version = -1

    def delete_alias(self, address: str) -> bool:
        return self._change("DELETE FROM alias WHERE address = ?", [address])

    def choose(self, recipient: str, sender: str, *, is_welcome: bool, limit: int) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO choice(recipient, sender, is_welcome, at) VALUES(?, ?, ?, ?)",
                [recipient, sender, is_welcome, time.time()],
            )
            connection.execute(
                "DELETE FROM choice WHERE recipient = ?1 AND sender NOT IN"
                " (SELECT sender FROM choice WHERE recipient = ?1 ORDER BY at DESC LIMIT ?2)",
                [recipient, limit],
            )

        write_once(self._path, job)
        self._version = -1

    def forget_choice(self, recipient: str, sender: str) -> bool:
        return self._change("DELETE FROM choice WHERE recipient = ? AND sender = ?", [recipient, sender])

    def _change(self, sql: str, values: list[object]) -> bool:
        changed = change_once(self._path, sql, values)
        self._version = -1
        return changed

    def close(self) -> None:
        self._reader.close()


def _account(row: tuple[str, str, int, float, int | None]) -> Account:
    address, password_hash, disabled, created, quota = row
    return Account(address, None if disabled else password_hash, bool(disabled), created, quota)
