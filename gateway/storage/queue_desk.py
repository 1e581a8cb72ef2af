"""What people and upkeep do with the queue, beside the runner: look, hold, release, retry, delete."""

import sqlite3
import time
from pathlib import Path

from gateway.queue.store import Filter, QueuedMessage, QueueEntry, State
from gateway.storage.queue_tables import (
    CORRUPT,
    HELD,
    KEPT_BY_RULE,
    MIGRATIONS,
    QUARANTINED,
    READY,
    STATES,
    conditions_of,
    drop_if_done,
    info_of,
    load_message,
)
from gateway.storage.spool import Spool
from gateway.storage.sqlite import Database, prepare


class QueueDesk:
    """Any thread may ask. Rows under a lease are left to their runner."""

    def __init__(self, path: Path, spool: Spool) -> None:
        prepare(path, MIGRATIONS)
        self._spool = spool
        self._database = Database(path)

    def entries(self, wanted: Filter, limit: int = 10_000) -> list[QueueEntry]:
        where, values = conditions_of(wanted)
        return self._database.read(
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
            return None if row is None else load_message(connection, self._spool, row[0])

        return self._database.read(job)

    def set_state(self, wanted: Filter, action: str) -> int:
        """action: "retry" (now), "hold", "release". Rows under a lease are left to their runner. Returns rows changed.

        What rules keep is not released here but looked at first: `quarantine.release`. What is released counts as come
        now: the time that it was kept back is not the recipient's delay.
        """
        where, values = conditions_of(wanted)
        change, states = {
            "retry": (f"due = {time.time()}", (READY,)),
            "hold": (f"state = {HELD}", (READY,)),
            "release": (f"state = {READY}, due = {time.time()}", (HELD, CORRUPT)),
        }[action]
        chosen = (
            f"FROM recipient JOIN message ON message.id = message WHERE state IN ({', '.join(map(str, states))})"
            f" AND {where}"
        )
        if action == "release":
            chosen += f" AND NOT ({KEPT_BY_RULE})"

        def job(connection: sqlite3.Connection) -> int:
            if action == "release":
                now = time.time()
                sql = f"UPDATE message SET expires = ? + expires - created, created = ? WHERE id IN (SELECT message {chosen})"  # noqa: E501
                connection.execute(sql, [now, now, *values])
            sql = f"UPDATE recipient SET {change} WHERE id IN (SELECT recipient.id {chosen})"
            return connection.execute(sql, values).rowcount

        return self._database.change(job)

    def delete(self, wanted: Filter) -> int:
        """Remove rows that are not under a lease, and messages that have none left. No DSN is sent."""
        where, values = conditions_of(wanted)

        def job(connection: sqlite3.Connection) -> tuple[int, list[str]]:
            rows = connection.execute(
                "SELECT recipient.id, message FROM recipient JOIN message ON message.id = message"
                f" WHERE state <> 1 AND {where}",
                values,
            ).fetchall()
            connection.executemany("DELETE FROM recipient WHERE id = ?", [(row,) for row, _ in rows])
            names = [name for message in {message for _, message in rows} for name in drop_if_done(connection, message)]
            return len(rows), names

        count, names = self._database.change(job)
        for name in names:
            self._spool.remove(name)
        return count

    def counts(self) -> tuple[dict[State, int], float]:
        """Recipients by state, and the age in seconds of the oldest message."""

        def job(connection: sqlite3.Connection) -> tuple[dict[State, int], float]:
            found = dict(connection.execute("SELECT state, count(*) FROM recipient GROUP BY state").fetchall())
            oldest = connection.execute(
                "SELECT created FROM message JOIN recipient ON message = message.id WHERE state <> ?"
                " ORDER BY created LIMIT 1",
                [QUARANTINED],
            ).fetchone()
            age = max(0.0, time.time() - _number(oldest[0])) if oldest and _number(oldest[0]) else 0.0
            return {state: found.get(number, 0) for number, state in enumerate(STATES)}, age

        return self._database.read(job)

    def blob_names(self) -> set[str]:
        return self._database.read(
            lambda connection: {name for (name,) in connection.execute("SELECT name FROM blob WHERE name IS NOT NULL")}
        )

    def close(self) -> None:
        self._database.close()


def _entry(row: tuple[object, ...]) -> QueueEntry:
    """Shows whatever a damaged row holds, as well as it can."""
    queue_id, state, created, due, size, reverse, forward, destination, attempts, last, info = row
    known = STATES[state] if isinstance(state, int) and 0 <= state < len(STATES) else State.CORRUPT
    return QueueEntry(
        str(queue_id), known, _number(created), _number(due), int(_number(size)), str(reverse), str(forward),
        str(destination), int(_number(attempts)), str(last), info_of(info),
    )  # fmt: skip


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else 0.0
