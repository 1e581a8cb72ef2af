"""The queue on SQLite as intake and runner use it (`queue.store.QueueStore`)."""

import asyncio
import functools
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gateway.core.address import parse_mailbox
from gateway.core.errors import StorageBroken
from gateway.message.blob import FileBlob
from gateway.queue.store import LEASE_S, TOKENS, Claim, ClaimedRecipient, NewMessage, Settlement, boot_time
from gateway.storage.gather import Gatherer
from gateway.storage.queue_tables import MIGRATIONS, Arrival, drop_if_done, insert_messages, load_message, readmit
from gateway.storage.spool import Spool
from gateway.storage.sqlite import Writer, prepare

_SCAN = 500  # due rows looked at in one pass of a claim
_PASSES = 8
POSTPONE_S = 60.0


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
        self._intake: Gatherer[Arrival] = Gatherer(self.writer, insert_messages)
        self.spool = spool
        self._owner = owner

    # --- in -------------------------------------------------------------------------------------------------------

    async def enqueue(self, *messages: NewMessage) -> None:
        loop = asyncio.get_running_loop()
        over: dict[int, list[NewMessage]] = {}
        for message in messages:
            over.setdefault(id(message.blob), []).append(message)
        arrival: list[tuple[list[NewMessage], str | None]] = []
        try:
            for group in over.values():
                blob, name = group[0].blob, None
                if isinstance(blob, FileBlob):
                    name = secrets.token_hex(12)
                    await loop.run_in_executor(self.spool.pool, self.spool.keep, blob.path, name)
                arrival.append((group, name))
            await self._intake.add(arrival)
        except StorageBroken:
            raise  # the row may yet stand, so its file must; a sweep finds out
        except Exception:
            for _, name in arrival:
                if name is not None:
                    self.spool.remove(name)
            raise

    async def readmit(self, kept_id: str, rows: Sequence[int], message: NewMessage) -> bool:
        has_changed, names = await self.writer.run(lambda connection: readmit(connection, kept_id, rows, message))
        await self._remove(names)
        return has_changed

    async def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            await asyncio.get_running_loop().run_in_executor(self.spool.pool, self.spool.remove, name)

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
                message = load_message(connection, self.spool, message_row)
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
        await self._remove(names)
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

    def close(self) -> None:
        self.writer.stop()


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
        forward_path, orcpt, notify, attempts, warned, due = connection.execute(
            "SELECT forward_path, orcpt, notify, attempts, warned, due FROM recipient WHERE id = ?", [row]
        ).fetchone()
        words = frozenset(notify.split(",")) if notify else frozenset()
        yield ClaimedRecipient(row, parse_mailbox(forward_path), orcpt, words, int(attempts), bool(warned), float(due))


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
    if settlement.notices:
        insert_messages(connection, [[((notice,), None)] for notice in settlement.notices])
    if settlement.host_down_until is not None:
        connection.execute(
            "UPDATE recipient SET due = ? WHERE state = 0 AND destination = ? AND due < ?",
            [settlement.host_down_until, settlement.claim.destination, settlement.host_down_until],
        )
    return True, [] if settlement.retries else drop_if_done(connection, row[0])
