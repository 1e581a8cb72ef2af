"""Quarantine on SQLite, in the tables of the queue (`quarantine.store.QuarantineStore`)."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateway.quarantine.store import Kept, Request, Untold
from gateway.queue.store import Filter, NewMessage, QueuedMessage
from gateway.storage.quarantine_room import size_for, size_of
from gateway.storage.queue_tables import (
    KEPT_BY_RULE,
    MIGRATIONS,
    QUARANTINED,
    conditions_of,
    info_of,
    insert_messages,
    load_message,
)
from gateway.storage.spool import Spool
from gateway.storage.sqlite import Database, prepare

SELDOM = 50


class SqliteQuarantine:
    """Any thread may ask; the writer's thread begins with the first change."""

    def __init__(self, path: Path, spool: Spool) -> None:
        prepare(path, MIGRATIONS)
        self._spool = spool
        self._database = Database(path)
        self._size, self._measure_at = 0, float("-inf")

    # --- what is kept ---------------------------------------------------------------------------------------------

    def find(self, row: int, queue_id: str) -> Kept | None:
        return next(iter(self.kept([Untold(row, queue_id, "", "")])), None)

    def kept(self, rows: Sequence[Untold]) -> Sequence[Kept]:
        sql = (
            "SELECT forward_path, info, message FROM recipient JOIN message ON message.id = message"
            f" WHERE recipient.id = ? AND queue_id = ? AND state = {QUARANTINED}"
        )

        def query(connection: sqlite3.Connection) -> Iterator[Kept]:
            for each in rows:
                found = connection.execute(sql, [each.row, each.queue_id]).fetchone()
                loaded = None if found is None else self._loaded(connection, found[2])[0]
                if loaded is not None:
                    yield Kept(each.row, str(found[0]), info_of(found[1]), loaded)

        return self._database.read(lambda connection: list(query(connection)))

    def untold(self, but_for: str, limit: int) -> Sequence[Untold]:
        def query(connection: sqlite3.Connection) -> list[Untold]:
            rows = connection.execute(
                "SELECT recipient.id, queue_id, forward_path, orcpt FROM recipient JOIN message ON message.id = message"
                f" WHERE state = {QUARANTINED} AND told = 0 AND (NOT json_valid(info)"
                " OR coalesce(json_extract(info, '$.kept_by'), '') <> ? AND json_extract(info, '$.refused') IS NULL)"
                " ORDER BY created DESC LIMIT ?",
                [but_for, limit],
            )
            return [Untold(row, str(queue_id), str(to), str(orcpt)) for row, queue_id, to, orcpt in rows]

        return self._database.read(query)

    def _loaded(self, connection: sqlite3.Connection, row: int) -> tuple[QueuedMessage | None, str]:
        try:
            return load_message(connection, self._spool, row), ""
        except (OSError, ValueError, TypeError) as error:
            return None, str(error)

    # --- release --------------------------------------------------------------------------------------------------

    def ask(self, wanted: Filter, by: str, *, is_despite: bool) -> Sequence[int]:
        where, values = conditions_of(wanted)

        def job(connection: sqlite3.Connection) -> list[int]:
            rows = connection.execute(
                "SELECT recipient.id FROM recipient JOIN message ON message.id = message"
                f" WHERE {KEPT_BY_RULE} AND {where}",
                values,
            ).fetchall()
            _insert_requests(connection, [row for (row,) in rows], by, is_despite=is_despite)
            return [row for (row,) in rows]

        return self._database.change(job)

    def ask_by_link(self, row: int, queue_id: str, by: str, link: bytes, expires: float) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            kept = connection.execute(
                "SELECT 1 FROM recipient JOIN message ON message.id = message"
                f" WHERE recipient.id = ? AND queue_id = ? AND state = {QUARANTINED}",
                [row, queue_id],
            ).fetchone()
            if kept is None or not _use(connection, link, expires):
                return False
            _insert_requests(connection, [row], by, is_despite=False)
            return True

        return self._database.change(job)

    def is_used(self, link: bytes) -> bool:
        sql = "SELECT 1 FROM used_link WHERE link = ?"
        return self._database.read(lambda connection: connection.execute(sql, [link]).fetchone()) is not None

    def use_link(self, link: bytes, expires: float) -> None:
        self._database.change(lambda connection: _use(connection, link, expires))

    def requests(self, limit: int) -> Sequence[Request]:
        def query(connection: sqlite3.Connection) -> list[Request]:
            rows = connection.execute(
                "SELECT recipient.id, forward_path, message, asked_by, is_despite, queue_id, info FROM release"
                " JOIN recipient ON recipient.id = recipient JOIN message ON message.id = message"
                " WHERE release.due <= ? ORDER BY release.due, recipient LIMIT ?",
                [time.time(), limit],
            ).fetchall()
            groups: dict[tuple[int, str, int], list[tuple[int, str]]] = {}
            told = {}
            for row, address, message, by, is_despite, queue_id, info in rows:
                groups.setdefault((message, by, is_despite), []).append((row, str(address)))
                told[message] = str(queue_id), info_of(info)
            return [
                Request(dict(recipients), str(by), bool(is_despite), *told[message], *self._loaded(connection, message))
                for (message, by, is_despite), recipients in groups.items()
            ]

        return self._database.read(query)

    def postpone(self, request: Request, reason: str, due: float) -> None:
        def job(connection: sqlite3.Connection) -> None:
            rows = [(due, row) for row in _of(connection, request)]
            connection.executemany("UPDATE release SET due = ? WHERE recipient = ?", rows)
            _note(connection, [row for _, row in rows], reason)

        self._database.change(job)

    def refuse(self, request: Request, reason: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            rows = _of(connection, request)
            connection.executemany("DELETE FROM release WHERE recipient = ?", [(row,) for row in rows])
            _note(connection, rows, reason)

        self._database.change(job)

    def waiting(self, rows: Sequence[int]) -> Sequence[int]:
        wanted = set(rows)
        return self._database.read(
            lambda connection: [row for (row,) in connection.execute("SELECT recipient FROM release") if row in wanted]
        )

    def kept_still(self, rows: Sequence[int]) -> Sequence[tuple[str, str, str]]:
        def query(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
            sql = (
                "SELECT queue_id, forward_path, last_reply FROM recipient JOIN message ON message.id = message"
                f" WHERE recipient.id = ? AND {KEPT_BY_RULE}"
            )
            found = (connection.execute(sql, [row]).fetchone() for row in rows)
            return [(str(row[0]), str(row[1]), str(row[2])) for row in found if row is not None]

        return self._database.read(query)

    # --- digests --------------------------------------------------------------------------------------------------

    def tell(self, rows: Sequence[Untold], digest: NewMessage | None) -> bool:
        sql = (
            "UPDATE recipient SET told = 1 WHERE id = ? AND told = 0"
            " AND message = (SELECT id FROM message WHERE queue_id = ?)"
        )

        def job(connection: sqlite3.Connection) -> bool:
            changed = [connection.execute(sql, [each.row, each.queue_id]).rowcount for each in rows]
            if not any(changed):
                return False
            if digest is not None:
                insert_messages(connection, [[((digest,), None)]])
            return True

        return self._database.change(job)

    def octets(self, recipient: str) -> int:
        return self._database.read(lambda connection: size_for(connection, recipient))

    def is_done(self, what: str, day: str) -> bool:
        sql = "SELECT 1 FROM done WHERE what = ? AND day = ?"
        return self._database.read(lambda connection: connection.execute(sql, [what, day]).fetchone()) is not None

    def finish_day(self, what: str, day: str) -> None:
        sql = "INSERT OR REPLACE INTO done(what, day) VALUES(?, ?)"
        self._database.change(lambda connection: connection.execute(sql, [what, day]))

    def size(self) -> int:
        """Octets of all that is quarantined; counted so seldom that counting takes a fiftieth of the time."""
        now = time.monotonic()
        if now >= self._measure_at:
            self._size = self._database.read(size_of)
            self._measure_at = now + SELDOM * (time.monotonic() - now)
        return self._size

    def prune(self) -> None:
        self._database.change(
            lambda connection: connection.execute("DELETE FROM used_link WHERE expires < ?", [time.time()])
        )

    def close(self) -> None:
        self._database.close()


def _insert_requests(connection: sqlite3.Connection, rows: list[int], by: str, *, is_despite: bool) -> None:
    connection.executemany(
        "INSERT INTO release(recipient, asked_by, due, is_despite) VALUES(?, ?, ?, ?) ON CONFLICT(recipient) DO UPDATE"
        " SET due = excluded.due, asked_by = iif(is_despite, asked_by, excluded.asked_by),"
        " is_despite = max(is_despite, excluded.is_despite)",
        [(row, by, time.time(), is_despite) for row in rows],
    )
    _note(connection, rows, "")


def _of(connection: sqlite3.Connection, request: Request) -> list[int]:
    """Rows that are still asked for as this request has it: nothing is answered that was asked since, or of another
    message that has the row's number by now.
    """
    marks = ", ".join("?" * len(request.recipients))
    rows = connection.execute(
        "SELECT release.recipient FROM release JOIN recipient ON recipient.id = release.recipient"
        " JOIN message ON message.id = message"
        f" WHERE queue_id = ? AND is_despite = ? AND release.recipient IN ({marks})",
        [request.queue_id, request.is_despite, *request.recipients],
    )
    return [row for (row,) in rows]


def _note(connection: sqlite3.Connection, rows: Iterable[int], reason: str) -> None:
    connection.executemany("UPDATE recipient SET last_reply = ? WHERE id = ?", [(reason[:500], row) for row in rows])


def _use(connection: sqlite3.Connection, link: bytes, expires: float) -> bool:
    sql = "INSERT OR IGNORE INTO used_link(link, expires) VALUES(?, ?)"
    return connection.execute(sql, [link, expires]).rowcount > 0
