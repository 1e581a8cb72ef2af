"""The queue on SQLite (see `queue.store`): tables message, blob, recipient; one row a recipient that is still to go."""

import asyncio
import functools
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.errors import StorageBroken
from gateway.message.blob import Blob, FileBlob, MemoryBlob
from gateway.queue.store import (
    LEASE_S,
    TOKENS,
    Claim,
    ClaimedRecipient,
    Filter,
    NewMessage,
    QueuedMessage,
    QueueEntry,
    Settlement,
    State,
    boot_time,
)
from gateway.storage.spool import Spool
from gateway.storage.sqlite import Writer, connect, prepare

T = TypeVar("T")
READY, ACTIVE, HELD, CORRUPT = range(4)
_STATES = (State.READY, State.ACTIVE, State.HELD, State.CORRUPT)
_SCAN = 500  # due rows looked at in one pass of a claim
_PASSES = 8
POSTPONE_S = 60.0
BODIES = frozenset({"", "7BIT", "8BITMIME", "BINARYMIME"})

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
)


@functools.cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class SqliteQueue:
    """owner: the slot of this process, such as "queue-0"; leases of the slot's former process are void at once."""

    def __init__(
        self,
        path: Path,
        spool: Spool,
        *,
        owner: str,
        on_broken: Callable[[], None] | None = None,
        on_set_aside: Callable[[str], None] = lambda reason: None,
    ) -> None:
        prepare(path, MIGRATIONS)
        self._on_set_aside = on_set_aside
        self.writer = Writer(path, on_broken=on_broken)
        self.spool = spool
        self._owner = owner
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()

    # --- in -------------------------------------------------------------------------------------------------------

    async def enqueue(self, message: NewMessage) -> None:
        name = None
        if isinstance(message.blob, FileBlob):
            name = secrets.token_hex(12)
            await asyncio.get_running_loop().run_in_executor(self.spool.pool, self.spool.keep, message.blob.path, name)
        try:
            await self.writer.run(lambda connection: _insert(connection, message, name))
        except StorageBroken:
            raise  # the row may yet stand, so its file must; a sweep finds out
        except Exception:
            if name is not None:
                self.spool.remove(name)
            raise

    # --- claims ---------------------------------------------------------------------------------------------------

    async def claim(self, limit: int, take: Callable[[str], bool]) -> tuple[list[Claim], float | None]:
        def job(connection: sqlite3.Connection) -> tuple[list[Claim], float | None]:
            groups = _pick(connection, time.time(), limit, take)
            claims = self._lease(connection, groups)
            if claims or groups:
                return claims, None
            row = connection.execute("SELECT min(due) FROM recipient WHERE state = 0 AND due > ?", [time.time()])
            return [], row.fetchone()[0]

        return await self.writer.run(job)

    def _lease(self, connection: sqlite3.Connection, groups: dict[tuple[int, str], list[int]]) -> list[Claim]:
        claims: list[Claim] = []
        for (message_row, destination), rows in groups.items():
            token = secrets.randbelow(TOKENS)
            deadline = boot_time() + LEASE_S
            connection.executemany(
                "UPDATE recipient SET state = 1, owner = ?, boot = ?, token = ?, deadline = ? WHERE id = ?",
                [(self._owner, boot_id(), token, deadline, row) for row in rows],
            )
            try:
                message = self._load(connection, message_row)
                recipients = tuple(_load_recipients(connection, rows))
            except (ValueError, TypeError, OSError, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
                    raise
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    _postpone(connection, rows)  # the file system's trouble, not the message's
                    continue
                self._on_set_aside(f"message row {message_row}: {error}")
                connection.executemany(
                    "UPDATE recipient SET state = 3, last_reply = ? WHERE id = ?",
                    [(f"set aside: {error}", row) for row in rows],
                )
                continue
            claims.append(Claim(token, destination, message, recipients, deadline))
        return claims

    def _load(self, connection: sqlite3.Connection, row: int) -> QueuedMessage:
        (queue_id, created, expires, reverse_path, header, offset, body, smtputf8, ret, envid, size, octets, name) = (
            connection.execute(
                "SELECT queue_id, created, expires, reverse_path, header, offset, body, smtputf8, ret, envid, size,"
                " octets, name FROM message JOIN blob ON blob.id = message.blob WHERE message.id = ?",
                [row],
            ).fetchone()
        )
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
            blob = FileBlob(self.spool.path_of(name), self.spool.path_of(name).stat().st_size)
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
        )

    async def renew(self, claims: Sequence[Claim]) -> None:
        deadline = boot_time() + LEASE_S

        def job(connection: sqlite3.Connection) -> list[Claim]:
            return [claim for claim in claims if _renew(connection, claim, deadline)]

        for claim in await self.writer.run(job):
            claim.deadline = deadline

    async def settle(self, settlement: Settlement) -> bool:
        def job(connection: sqlite3.Connection) -> tuple[bool, list[str]]:
            return _settle(connection, settlement)

        is_ours, names = await self.writer.run(job)
        for name in names:
            await asyncio.get_running_loop().run_in_executor(self.spool.pool, self.spool.remove, name)
        return is_ours

    async def release(self, claim: Claim, due: float) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE recipient SET state = 0, due = ?, token = NULL, owner = NULL WHERE id = ? AND token = ?",
                [(due, recipient.row, claim.token) for recipient in claim.recipients],
            )

        await self.writer.run(job)

    async def overdue(self, warn_before: float, limit: int) -> list[Claim]:
        def job(connection: sqlite3.Connection) -> list[Claim]:
            groups: dict[tuple[int, str], list[int]] = {}
            for row, message, destination in connection.execute(
                "SELECT recipient.id, message, destination FROM message JOIN recipient ON message = message.id"
                " WHERE state = 0 AND (expires <= :now OR (created <= :warn AND warned = 0 AND attempts = 0))"
                " ORDER BY created LIMIT :limit",
                {"now": time.time(), "warn": warn_before, "limit": limit},
            ):
                groups.setdefault((message, destination), []).append(row)
            return self._lease(connection, groups)

        return await self.writer.run(job)

    async def recover(self) -> int:
        def job(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE recipient SET state = 0, token = NULL, owner = NULL"
                " WHERE state = 1 AND (owner = ? OR boot <> ? OR deadline < ?)",
                [self._owner, boot_id(), boot_time()],
            ).rowcount

        return await self.writer.run(job)

    async def reap(self) -> int:
        def job(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE recipient SET state = 0, token = NULL, owner = NULL"
                " WHERE state = 1 AND (boot <> ? OR deadline < ?)",
                [boot_id(), boot_time()],
            ).rowcount

        return await self.writer.run(job)

    # --- for people -----------------------------------------------------------------------------------------------

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Beside the writers, not among them."""
        with self._reading:
            if self._reader is None:
                self._reader = connect(self._path)
            return query(self._reader)

    def entries(self, wanted: Filter, limit: int = 10_000) -> list[QueueEntry]:
        where, values = _where(wanted)
        return self._read(
            lambda connection: [
                _entry(row)
                for row in connection.execute(
                    "SELECT queue_id, state, created, due, coalesce(size, 0) + length(header), reverse_path,"
                    " forward_path, destination, attempts, last_reply, info"
                    " FROM recipient JOIN message ON message.id = message"
                    f" LEFT JOIN blob ON blob.id = blob WHERE {where} ORDER BY created, recipient.id LIMIT ?",
                    [*values, limit],
                )
            ]
        )

    def message(self, queue_id: str) -> QueuedMessage | None:
        def job(connection: sqlite3.Connection) -> QueuedMessage | None:
            row = connection.execute("SELECT id FROM message WHERE queue_id = ?", [queue_id.upper()]).fetchone()
            return None if row is None else self._load(connection, row[0])

        return self._read(job)

    def set_state(self, wanted: Filter, action: str) -> int:
        """action: "retry" (now), "hold", "release". Rows under a lease are left to their runner. Returns rows
        changed.
        """
        where, values = _where(wanted)
        change = {
            "retry": ("due = :now", str(READY)),
            "hold": ("state = 2", str(READY)),
            "release": ("state = 0, due = :now", f"{HELD}, {CORRUPT}"),
        }[action]
        sql = (
            f"UPDATE recipient SET {change[0].replace(':now', '?')} WHERE state IN ({change[1]}) AND id IN"
            f" (SELECT recipient.id FROM recipient JOIN message ON message.id = message WHERE {where})"
        )
        now = [time.time()] if ":now" in change[0] else []
        return self.writer.call(lambda connection: connection.execute(sql, [*now, *values]).rowcount)

    def delete(self, wanted: Filter) -> int:
        """Remove rows that are not under a lease, and messages that have none left. No DSN is sent."""
        where, values = _where(wanted)

        def job(connection: sqlite3.Connection) -> tuple[int, list[str]]:
            rows = connection.execute(
                "SELECT recipient.id, message FROM recipient JOIN message ON message.id = message"
                f" WHERE state <> 1 AND {where}",
                values,
            ).fetchall()
            connection.executemany("DELETE FROM recipient WHERE id = ?", [(row,) for row, _ in rows])
            names = [
                name for message in {message for _, message in rows} for name in _drop_if_done(connection, message)
            ]
            return len(rows), names

        count, names = self.writer.call(job)
        for name in names:
            self.spool.remove(name)
        return count

    def counts(self) -> tuple[dict[State, int], float]:
        """Recipients by state, and the age in seconds of the oldest message."""

        def job(connection: sqlite3.Connection) -> tuple[dict[State, int], float]:
            found = dict(connection.execute("SELECT state, count(*) FROM recipient GROUP BY state").fetchall())
            oldest = connection.execute("SELECT min(created) FROM message").fetchone()[0]
            age = max(0.0, time.time() - _number(oldest)) if _number(oldest) else 0.0
            return {state: found.get(number, 0) for number, state in enumerate(_STATES)}, age

        return self._read(job)

    def blob_names(self) -> set[str]:
        return self._read(
            lambda connection: {name for (name,) in connection.execute("SELECT name FROM blob WHERE name IS NOT NULL")}
        )

    def close(self) -> None:
        self.writer.stop()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None


def _check_types(*groups: tuple[object, ...]) -> None:
    """Each group a type and the values that must be of it: SQLite keeps what it is given, a damaged file anything."""
    for kind, *values in groups:
        if not all(type(value) is kind for value in values):
            raise TypeError(f"a value that is no {getattr(kind, '__name__', kind)}")


def _insert(connection: sqlite3.Connection, message: NewMessage, name: str | None) -> None:
    octets = message.blob.octets if isinstance(message.blob, MemoryBlob) else None
    blob = connection.execute(
        "INSERT INTO blob(size, octets, name) VALUES(?, ?, ?)", (message.blob.size, octets, name)
    ).lastrowid
    row = connection.execute(
        "INSERT INTO message(queue_id, created, expires, reverse_path, body, smtputf8, ret, envid, info, header,"
        " offset, blob) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.queue_id, message.created, message.expires, str(message.reverse_path), message.body,
            message.smtputf8, message.ret, message.envid, json.dumps(dict(message.info)), message.header,
            message.offset, blob,
        ),
    ).lastrowid  # fmt: skip
    connection.executemany(
        "INSERT INTO recipient(message, forward_path, orcpt, notify, destination, state, due)"
        " VALUES(?, ?, ?, ?, ?, 0, ?)",
        [
            (
                row,
                str(to.forward_path),
                to.orcpt,
                ",".join(sorted(to.notify)),
                to.forward_path.domain.ascii,
                message.created,
            )
            for to in message.recipients
        ],
    )


def _pick(
    connection: sqlite3.Connection, now: float, limit: int, take: Callable[[str], bool]
) -> dict[tuple[int, str], list[int]]:
    """Due rows by (message, destination): no destination gets more than its slots, so none can fill the claim.

    One pass sees the oldest due rows; a destination whose slots are used up is left out of the next pass.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    excluded: set[str] = set()
    for _ in range(_PASSES):
        marks = ",".join("?" * len(excluded))
        rows = connection.execute(
            f"SELECT id, message, destination FROM recipient WHERE state = 0 AND due <= ?"
            f" AND destination NOT IN ({marks}) ORDER BY due LIMIT {_SCAN}",
            [now, *excluded],
        ).fetchall()
        for row, message, destination in rows:
            key = (message, destination)
            if key in groups:
                if row not in groups[key]:
                    groups[key].append(row)
                continue
            if len(groups) >= limit:
                return groups
            if destination in excluded:
                continue
            if not take(destination):
                excluded.add(destination)
                continue
            groups[key] = [row]
        if len(rows) < _SCAN:
            break
    return groups


def _postpone(connection: sqlite3.Connection, rows: Iterable[int]) -> None:
    sql = "UPDATE recipient SET state = 0, due = ?, token = NULL, owner = NULL WHERE id = ?"
    connection.executemany(sql, [(time.time() + POSTPONE_S, row) for row in rows])


def _renew(connection: sqlite3.Connection, claim: Claim, deadline: float) -> bool:
    rows = [(deadline, recipient.row, claim.token) for recipient in claim.recipients]
    sql = "UPDATE recipient SET deadline = ? WHERE id = ? AND token = ? AND state = 1"
    return connection.executemany(sql, rows).rowcount == len(rows)


def _load_recipients(connection: sqlite3.Connection, rows: Iterable[int]) -> Iterator[ClaimedRecipient]:
    for row in rows:
        forward_path, orcpt, notify, attempts, warned = connection.execute(
            "SELECT forward_path, orcpt, notify, attempts, warned FROM recipient WHERE id = ?", [row]
        ).fetchone()
        words = frozenset(notify.split(",")) if notify else frozenset()
        yield ClaimedRecipient(row, parse_mailbox(forward_path), orcpt, words, int(attempts), bool(warned))


def _settle(connection: sqlite3.Connection, settlement: Settlement) -> tuple[bool, list[str]]:
    token = settlement.claim.token
    row = connection.execute(
        "SELECT message FROM recipient WHERE id = ? AND token = ? AND state = 1",
        [settlement.claim.recipients[0].row, token],
    ).fetchone()
    if row is None:
        return False, []
    connection.executemany(
        "DELETE FROM recipient WHERE id = ? AND token = ?", [(done, token) for done in settlement.done]
    )
    connection.executemany(
        "UPDATE recipient SET state = 0, due = ?, last_reply = ?, attempts = ?, warned = ?, token = NULL, owner = NULL"
        " WHERE id = ? AND token = ?",
        [
            (retry.due, retry.reply, retry.attempts, retry.warned, number, token)
            for number, retry in settlement.retries.items()
        ],
    )
    for notice in settlement.notices:
        _insert(connection, notice, None)
    if settlement.host_down_until is not None:
        connection.execute(
            "UPDATE recipient SET due = ? WHERE state = 0 AND destination = ? AND due < ?",
            [settlement.host_down_until, settlement.claim.destination, settlement.host_down_until],
        )
    return True, [] if settlement.retries else _drop_if_done(connection, row[0])


def _drop_if_done(connection: sqlite3.Connection, message: int) -> list[str]:
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


def _where(wanted: Filter) -> tuple[str, list[object]]:
    conditions, values = ["1 = 1"], []  # type: tuple[list[str], list[object]]
    for sql, value in (
        ("queue_id = ?", wanted.queue_id.upper()),
        ("destination = ?", wanted.domain.lower()),
        ("reverse_path = ? COLLATE NOCASE", wanted.sender),
        ("forward_path = ? COLLATE NOCASE", wanted.recipient),
    ):
        if value:
            conditions.append(sql)
            values.append("" if value == "<>" else value)
    if wanted.older_than is not None:
        conditions.append("created <= ?")
        values.append(time.time() - wanted.older_than)
    if wanted.state is not None:
        conditions.append("state = ?")
        values.append(_STATES.index(wanted.state))
    return " AND ".join(conditions), values


def _entry(row: tuple[object, ...]) -> QueueEntry:
    """Shows whatever a damaged row holds, as well as it can."""
    queue_id, state, created, due, size, reverse, forward, destination, attempts, last, info = row
    try:
        told = {str(key): str(value) for key, value in json.loads(str(info)).items()}
    except (ValueError, AttributeError):
        told = {}
    known = _STATES[state] if isinstance(state, int) and 0 <= state < len(_STATES) else State.CORRUPT
    return QueueEntry(
        str(queue_id), known, _number(created), _number(due), int(_number(size)), str(reverse), str(forward),
        str(destination), int(_number(attempts)), str(last), told,
    )  # fmt: skip


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else 0.0
