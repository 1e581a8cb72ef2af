"""One user's index.db as the store uses it: messages of mailboxes, their flags, and what has changed since.

All numbers are the standard's: a UID once given is never given to another message, MODSEQ only grows (RFC 7162), and
what is expunged is remembered for those who ask later. Not for several threads at once.
"""

import fcntl
import json
import os
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.mailflags import DELETED, FIRST_KEYWORD, MAX_KEYWORDS
from gateway.mailbox.schema import open_index
from gateway.mailbox.values import (
    FIELDS,
    OF_META,
    OF_MSG,
    Arrival,
    Batch,
    Box,
    Changes,
    Details,
    FlagChange,
    StoredMessage,
    Summarised,
)

MAX_DELIVERIES = 10_000  # delivery ids remembered, so that a retry after a crash makes no duplicate
FORGOTTEN = 100  # of them at once
MAX_EXPUNGED = 20_000  # of one mailbox; who asks for older ones is told of all that are not there
ROWS = 50  # that are read before it is looked how many octets they have
MAX_OCTETS = 1024 * 1024  # of details that are told at once, but for the last ROWS
_ADD = (
    "INSERT INTO msg(box, uid, modseq, flags, size, idate, savedate, file, emailid) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
BOX = "id, name, uidvalidity, uidnext, modseq, special, recent"  # columns of `Box`


class KeywordsFull(StoreError):
    """The mailbox has as many keywords as it may."""


class Index:
    """is_alone: who opens it has the lock of its folder, and nobody else knows of it."""

    def __init__(self, path: Path, *, is_alone: bool = False) -> None:
        self._path = path
        self._connection = open_index(path, is_alone=is_alone)
        self._inode = path.stat().st_ino
        self._folder = -1 if is_alone else os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def connection(self) -> sqlite3.Connection:
        return self._connection

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction, durable when it ends. Raises sqlite3.OperationalError when this index has been replaced."""
        with self._shared():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Nobody makes the index anew meanwhile (`recovery`): what is done to it and to files would not be one."""
        if self._folder < 0:
            yield
            return
        fcntl.flock(self._folder, fcntl.LOCK_SH)
        try:
            if os.stat(self._path).st_ino != self._inode:
                raise sqlite3.OperationalError("the index has been made anew")
            yield
        finally:
            fcntl.flock(self._folder, fcntl.LOCK_UN)

    @contextmanager
    def note(self) -> Iterator[None]:
        """A transaction that a crash of the system may undo: for what can be found out again."""
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            with self.change():
                yield
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        self._connection.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    # --- deliveries -----------------------------------------------------------------------------------------------

    def arrival(self, name: str, delivery_id: str) -> Arrival | None:
        """What has to be known before a message is stored. None: there is no such mailbox."""
        row = self._connection.execute(
            f"SELECT {BOX}, octets, warned, EXISTS(SELECT 1 FROM delivery WHERE delivery.id = ?)"  # noqa: S608  # constant
            " FROM box, quota WHERE name = ?",
            [delivery_id, name],
        ).fetchone()
        return None if row is None else Arrival(Box(*row[:-3]), row[-3], row[-2], bool(row[-1]))

    def note_delivery(self, delivery_id: str) -> None:
        execute = self._connection.execute
        number = execute("INSERT INTO delivery(id) VALUES(?)", [delivery_id]).lastrowid or 0
        if number % FORGOTTEN == 0:
            execute("DELETE FROM delivery WHERE number <= ?", [number - MAX_DELIVERIES])

    # --- messages -------------------------------------------------------------------------------------------------

    def box(self, name: str) -> Box | None:
        row = self._connection.execute(
            f"SELECT {BOX} FROM box WHERE name = ?",  # noqa: S608  # a constant
            [name],
        ).fetchone()
        return None if row is None else Box(*row)

    def wanted_box(self, name: str) -> Box:
        """Raises StoreError."""
        found = self.box(name)
        if found is None:
            raise StoreError(f"no mailbox {name}")
        return found

    def take_uids(self, box: int, count: int) -> tuple[int, int]:
        """The first of so many UIDs, and the modseq of what is done with them; within a change."""
        uidnext, modseq = self._connection.execute(
            "UPDATE box SET uidnext = uidnext + ?, modseq = modseq + 1 WHERE id = ? RETURNING uidnext, modseq",
            [count, box],
        ).fetchone()
        return uidnext - count, modseq

    def next_modseq(self, box: int) -> int:
        row = self._connection.execute("UPDATE box SET modseq = modseq + 1 WHERE id = ? RETURNING modseq", [box])
        return int(row.fetchone()[0])

    def add(self, box: int, modseq: int, message: StoredMessage, told: Summarised | None, email_id: str) -> None:
        """Within a change. told None: it is worked out when somebody asks."""
        execute = self._connection.execute
        execute(
            _ADD,
            [
                box, message.uid, modseq, message.flags, message.size, message.internal_date, time.time(), message.file,
                email_id,
            ],
        )  # fmt: skip
        if told is not None:
            self.tell(box, message.uid, told)
        execute("UPDATE quota SET octets = octets + ?, messages = messages + 1", [message.size])

    def tell(self, box: int, uid: int, told: Summarised) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO meta(box, uid, env, bs, body, hdr, parts) VALUES(?, ?, ?, ?, ?, ?, ?)",
            [box, uid, told.envelope, told.structure, told.body, told.header, told.places],
        )

    def add_copies(self, box: int, modseq: int, copies: Sequence[tuple[StoredMessage, str]]) -> None:
        """Messages with their email ids, of which the rest is not known yet. Within a change."""
        now = time.time()
        self._connection.executemany(
            _ADD,
            [
                (box, each.uid, modseq, each.flags, each.size, each.internal_date, now, each.file, email_id)
                for each, email_id in copies
            ],
        )
        octets = sum(each.size for each, _ in copies)
        self._connection.execute("UPDATE quota SET octets = octets + ?, messages = messages + ?", [octets, len(copies)])

    def tell_as(self, box: int, other: int, pairs: Iterable[tuple[int, int]]) -> None:
        """What is known of messages, of their copies. pairs: UIDs here and there."""
        self._connection.executemany(
            "INSERT INTO meta(box, uid, env, bs, body, hdr, parts) SELECT ?, ?, env, bs, body, hdr, parts FROM meta"
            " WHERE box = ? AND uid = ?",
            [(other, other_uid, box, uid) for uid, other_uid in pairs],
        )

    def take_along(self, box: int, other: int, pairs: Iterable[tuple[int, int]]) -> None:
        """The same of messages that go once they are copied: half as much is written."""
        self._connection.executemany(
            "UPDATE meta SET box = ?, uid = ? WHERE box = ? AND uid = ?",
            [(other, other_uid, box, uid) for uid, other_uid in pairs],
        )

    def messages(self, box: int) -> list[StoredMessage]:
        rows = self._connection.execute(
            "SELECT uid, size, file, idate, flags FROM msg WHERE box = ? ORDER BY uid", [box]
        )
        return [StoredMessage(*row) for row in rows]

    def message(self, box: int, uid: int) -> StoredMessage | None:
        row = self._connection.execute(
            "SELECT uid, size, file, idate, flags FROM msg WHERE box = ? AND uid = ?", [box, uid]
        ).fetchone()
        return None if row is None else StoredMessage(*row)

    def with_email_ids(self, box: int, uids: Sequence[int]) -> list[tuple[StoredMessage, str]]:
        """Those of them that are there, with their email ids. uids: in order."""
        among, values = _among(uids)
        rows = self._connection.execute(
            f"SELECT uid, size, file, idate, flags, emailid FROM msg WHERE box = ? AND {among} ORDER BY uid",  # noqa: S608  # constants
            [box, *values],
        )
        return [(StoredMessage(*row), email_id) for *row, email_id in rows]

    def has_messages(self, name: str) -> bool:
        sql = "SELECT 1 FROM msg WHERE box = (SELECT id FROM box WHERE name = ?) LIMIT 1"
        return self._connection.execute(sql, [name]).fetchone() is not None

    def email_ids(self, box: int) -> set[str]:
        return {name for (name,) in self._connection.execute("SELECT emailid FROM msg WHERE box = ?", [box])}

    def details(self, box: int, uids: Sequence[int], wanted: Collection[str] = FIELDS) -> Batch:
        """Of those that are there and, where it takes that, worked out. uids: in order; wanted: of FIELDS."""
        among, values = _among(uids)
        cursor = self._connection.execute(f"{_select(frozenset(wanted))} {among} ORDER BY uid", [box, *values])
        measured = [itemgetter(Details._fields.index(name)) for name in wanted if name in OF_META]
        found: dict[int, Details] = {}
        octets = 0
        while rows := cursor.fetchmany(ROWS):
            found.update((row[0], Details._make(row)) for row in rows)
            octets += sum(sum(map(len, map(blob, rows))) for blob in measured)
            if octets > MAX_OCTETS:
                cursor.close()
                return Batch(found, bisect_right(uids, rows[-1][0]))
        return Batch(found, len(uids))

    # --- changes --------------------------------------------------------------------------------------------------

    def changes(self, box: int, since: int) -> Changes | None:
        """None: the mailbox is gone."""
        execute = self._connection.execute
        row = execute("SELECT modseq, uidnext, forgotten > ? FROM box WHERE id = ?", [since, box]).fetchone()
        if row is None:
            return None
        found = Changes(row[0], row[1], bool(row[2]))
        if found.is_whole:
            since = 0
        if found.modseq > since:
            # SQLite would read the whole mailbox in the order of UIDs; with a plus it finds the few by msg_modseq.
            order = "+uid" if since else "uid"
            found.rows = execute(
                f"SELECT uid, flags, modseq FROM msg WHERE box = ? AND modseq > ? ORDER BY {order}",  # noqa: S608
                [box, since],
            ).fetchall()
            gone = execute("SELECT uid FROM expunged WHERE box = ? AND modseq > ? ORDER BY uid", [box, since])
            found.vanished = [] if found.is_whole else [uid for (uid,) in gone]
        return found

    def name_of(self, box: int) -> str | None:
        """Its name now: another session may have renamed it."""
        row = self._connection.execute("SELECT name FROM box WHERE id = ?", [box]).fetchone()
        return None if row is None else str(row[0])

    def take_recent(self, box: int, below: int) -> int:
        """The first UID that nobody has seen; nobody else will see those below as recent."""
        execute = self._connection.execute
        (recent,) = execute("SELECT recent FROM box WHERE id = ?", [box]).fetchone()
        if recent < below:
            with self.change():
                (recent,) = execute("SELECT recent FROM box WHERE id = ?", [box]).fetchone()
                execute("UPDATE box SET recent = max(recent, ?) WHERE id = ?", [below, box])
        return int(recent)

    # --- flags ----------------------------------------------------------------------------------------------------

    def keywords(self, box: int) -> dict[int, str]:
        """Words by bit."""
        return dict(self._connection.execute("SELECT bit, word FROM keyword WHERE box = ? ORDER BY bit", [box]))

    def keyword_bits(self, box: int, words: Sequence[str], *, create: bool, drops: bool = False, used: int = 0) -> int:
        """Their bits together. create: those that are not known; else they are left out. drops: those for which there
        is no room; else it raises KeywordsFull. used: bits that are not free, though no message has them yet.
        """
        if not words:
            return 0
        known = {word.lower(): bit for bit, word in self.keywords(box).items()}
        found = 0
        for word in words:
            bit = known.get(word.lower())
            if bit is None and create:
                bit = self._free_bit(box, known, used | found)
                if bit is None and drops:
                    continue
                if bit is None:
                    raise KeywordsFull(f"a mailbox has at most {MAX_KEYWORDS} keywords")
                self._connection.execute("INSERT INTO keyword VALUES(?, ?, ?)", [box, bit, word])
                known[word.lower()] = bit
            if bit is not None:
                found |= 1 << bit
        return found

    def _free_bit(self, box: int, known: dict[str, int], used: int) -> int | None:
        """Where all are given away, one whose keyword no message has any more. used: bits that some will have now."""
        every = range(FIRST_KEYWORD, FIRST_KEYWORD + MAX_KEYWORDS)
        free = next((bit for bit in every if bit not in known.values()), None)
        if free is None:
            for (flags,) in self._connection.execute("SELECT DISTINCT flags FROM msg WHERE box = ?", [box]):
                used |= flags
            free = next((bit for bit in every if not used >> bit & 1), None)
            if free is not None:
                self._connection.execute("DELETE FROM keyword WHERE box = ? AND bit = ?", [box, free])
                known.pop(next(word for word, bit in known.items() if bit == free))
        return free

    def set_flags(
        self, box: int, uids: Sequence[int], change: FlagChange, unchanged_since: int | None = None
    ) -> tuple[list[tuple[int, int, int]], list[int], list[tuple[int, str]]]:
        """What has changed (uid, flags, modseq); who changed since and was left alone; names of files to change, by
        UID. Within a change.
        """
        changed: list[tuple[int, int, int]] = []
        conflicts: list[int] = []
        files: list[tuple[int, str]] = []
        modseq = 0
        among, values = _among(uids)
        sql = f"SELECT uid, flags, modseq, file FROM msg WHERE box = ? AND {among} ORDER BY uid"  # noqa: S608  # constants
        for uid, before, since, file in self._connection.execute(sql, [box, *values]).fetchall():
            if unchanged_since is not None and since > unchanged_since:
                conflicts.append(uid)
                continue
            flags = change.applied(before)
            if flags != before:
                modseq = modseq or self.next_modseq(box)
                changed.append((uid, flags, modseq))
                files.append((uid, file))
        self._connection.executemany(
            "UPDATE msg SET flags = ?, modseq = ? WHERE box = ? AND uid = ?",
            [(flags, modseq, box, uid) for uid, flags, modseq in changed],
        )
        return changed, conflicts, files

    def set_files(self, box: int, names: Iterable[tuple[int, str]]) -> None:
        """By UID."""
        self._connection.executemany(
            "UPDATE msg SET file = ? WHERE box = ? AND uid = ?", [(name, box, uid) for uid, name in names]
        )

    # --- expunge --------------------------------------------------------------------------------------------------

    def expunge(self, box: int, uids: Iterable[int], *, dooms: bool = True) -> tuple[list[int], list[str]]:
        """UIDs that were there, and the files that may go once the change is durable. dooms: they are to go, and who
        meets one then may remove it. Within a change.
        """
        among, values = _among(sorted({*uids}))
        execute = self._connection.execute
        rows = execute(
            f"DELETE FROM msg WHERE box = ? AND {among} RETURNING uid, file, size",  # noqa: S608  # a constant
            [box, *values],
        ).fetchall()
        if not rows:
            return [], []
        rows.sort()
        modseq = self.next_modseq(box)
        for table in ("meta", "heading"):
            execute(f"DELETE FROM {table} WHERE box = ? AND {among}", [box, *values])  # noqa: S608  # constants
        self._connection.executemany(
            "INSERT OR REPLACE INTO expunged(box, uid, modseq) VALUES(?, ?, ?)",
            [(box, uid, modseq) for uid, _, _ in rows],
        )
        if dooms:
            self._connection.executemany(
                "INSERT OR IGNORE INTO doomed VALUES(?, ?)", [(box, file.partition(":")[0]) for _, file, _ in rows]
            )
        octets = sum(size for _, _, size in rows)
        execute("UPDATE quota SET octets = octets - ?, messages = messages - ?", [octets, len(rows)])
        self._forget_old(box)
        return [uid for uid, _, _ in rows], [file for _, file, _ in rows]

    def doomed(self, box: int) -> set[str]:
        """Files of this mailbox that are to go."""
        return {file for (file,) in self._connection.execute("SELECT file FROM doomed WHERE box = ?", [box])}

    def forget_doomed(self, box: int, files: Iterable[str]) -> None:
        """They are gone. Within a change."""
        self._connection.executemany(
            "DELETE FROM doomed WHERE box = ? AND file = ?", [(box, file.partition(":")[0]) for file in files]
        )

    def deleted_uids(self, box: int) -> list[int]:
        """Those that are flagged so."""
        rows = self._connection.execute("SELECT uid FROM msg WHERE box = ? AND flags & ? <> 0", [box, DELETED])
        return [uid for (uid,) in rows]

    def _forget_old(self, box: int) -> None:
        execute = self._connection.execute
        (count,) = execute("SELECT count(*) FROM expunged WHERE box = ?", [box]).fetchone()
        if count > 2 * MAX_EXPUNGED:
            (limit,) = execute(
                "SELECT modseq FROM expunged WHERE box = ? ORDER BY modseq DESC LIMIT 1 OFFSET ?", [box, MAX_EXPUNGED]
            ).fetchone()
            execute("DELETE FROM expunged WHERE box = ? AND modseq <= ?", [box, limit])
            execute("UPDATE box SET forgotten = ? WHERE id = ?", [limit, box])

    def usage(self) -> tuple[int, int]:
        """Octets and messages of all mailboxes."""
        row = self._connection.execute("SELECT octets, messages FROM quota").fetchone()
        octets, messages = row or (0, 0)
        return int(octets), int(messages)


def _among(uids: Sequence[int]) -> tuple[str, list[int | str]]:
    """A condition, and its values, for these UIDs. uids: in order, once each."""
    if uids and uids[-1] - uids[0] == len(uids) - 1:
        return "uid BETWEEN ? AND ?", [uids[0], uids[-1]]
    return "uid IN (SELECT value FROM json_each(?))", [json.dumps(list(uids))]


@lru_cache
def _select(wanted: frozenset[str]) -> str:
    """Rows as `Details` has its fields, up to the condition."""
    columns = [name if field in wanted else nothing for field, (name, nothing) in OF_MSG.items()]
    columns += [name if field in wanted else "x''" for field, name in OF_META.items()]
    tables = "msg JOIN meta USING(box, uid)"
    if not wanted & OF_META.keys():
        tables = "msg"
    elif not wanted & OF_MSG.keys():
        tables = "meta"
    return f"SELECT uid, {', '.join(columns)} FROM {tables} WHERE box = ? AND"  # noqa: S608  # constants
