"""One user's index.db as the store uses it: messages of mailboxes, their flags, and what has changed since.

All numbers are the standard's: a UID once given is never given to another message, MODSEQ only grows (RFC 7162), and
what is expunged is remembered for those who ask later. Not for several threads at once.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.mailflags import DELETED, FIRST_KEYWORD, MAX_KEYWORDS
from gateway.mailbox.schema import open_index

MAX_DELIVERIES = 10_000  # delivery ids remembered, so that a retry after a crash makes no duplicate
FORGOTTEN = 100  # of them at once
MAX_EXPUNGED = 20_000  # of one mailbox; who asks for older ones is told of all that are not there
ROWS = 500  # in one statement
BOX = "id, name, uidvalidity, uidnext, modseq, special, recent"  # columns of `Box`


class KeywordsFull(StoreError):
    """The mailbox has as many keywords as it may."""


@dataclass(frozen=True, slots=True)
class Box:
    """modseq: the highest; recent: UIDs from here on have been shown to nobody; special: `\\Sent` and the like."""

    id: int
    name: str
    uidvalidity: int
    uidnext: int
    modseq: int
    special: str
    recent: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """octets: of the account now; warned: the level of which its user was told; is_there: the delivery."""

    box: Box
    octets: int
    warned: int
    is_there: bool


@dataclass(frozen=True, slots=True)
class Summarised:
    """What is worked out of a message once, in the forms in which it is kept."""

    envelope: bytes
    structure: bytes
    body: bytes
    header: bytes
    places: bytes


@dataclass(frozen=True, slots=True)
class StoredMessage:
    uid: int
    size: int
    file: str
    internal_date: float
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    uid: int
    size: int
    internal_date: float
    file: str
    envelope: bytes
    structure: bytes
    body: bytes
    header: bytes
    places: bytes


@dataclass(slots=True)
class Changes:
    """Since a modseq. rows: uid, flags, modseq of what is there; vanished: UIDs, in order. is_whole: that is too long
    ago, and rows are all that there is.
    """

    modseq: int
    uidnext: int
    is_whole: bool = False
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    vanished: list[int] = field(default_factory=list)


class Index:
    def __init__(self, path: Path) -> None:
        self._connection = open_index(path)

    @property
    def connection(self) -> sqlite3.Connection:
        return self._connection

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction, durable when it ends."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

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

    # --- deliveries -----------------------------------------------------------------------------------------------

    def arrival(self, name: str, delivery_id: str) -> "Arrival | None":
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
            "INSERT INTO msg(box, uid, modseq, flags, size, idate, savedate, file, emailid)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
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

    def tell_as(self, box: int, uid: int, other: int, other_uid: int) -> None:
        """What is known of a message, of its copy."""
        self._connection.execute(
            "INSERT INTO meta(box, uid, env, bs, body, hdr, parts) SELECT ?, ?, env, bs, body, hdr, parts FROM meta"
            " WHERE box = ? AND uid = ?",
            [other, other_uid, box, uid],
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

    def email_id(self, box: int, uid: int) -> str:
        row = self._connection.execute("SELECT emailid FROM msg WHERE box = ? AND uid = ?", [box, uid]).fetchone()
        return "" if row is None else str(row[0])

    def email_ids(self, box: int) -> set[str]:
        return {name for (name,) in self._connection.execute("SELECT emailid FROM msg WHERE box = ?", [box])}

    def details(self, box: int, uids: Sequence[int]) -> dict[int, Details]:
        """Of those that are there and worked out. uids: in order."""
        found: dict[int, Details] = {}
        for start in range(0, len(uids), ROWS):
            part = uids[start : start + ROWS]
            marks = ",".join("?" * len(part))
            for row in self._connection.execute(
                "SELECT msg.uid, size, idate, file, env, bs, body, hdr, parts FROM msg JOIN meta"  # noqa: S608  # marks
                f" ON meta.box = msg.box AND meta.uid = msg.uid WHERE msg.box = ? AND msg.uid IN ({marks})",
                [box, *part],
            ):
                found[row[0]] = Details(*row)
        return found

    def sizes_and_dates(self, box: int, first: int, last: int) -> dict[int, tuple[int, float]]:
        rows = self._connection.execute(
            "SELECT uid, size, idate FROM msg WHERE box = ? AND uid BETWEEN ? AND ?", [box, first, last]
        )
        return {uid: (size, date) for uid, size, date in rows}

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
            found.rows = execute(
                "SELECT uid, flags, modseq FROM msg WHERE box = ? AND modseq > ? ORDER BY uid", [box, since]
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

    def keyword_bits(self, box: int, words: Sequence[str], *, create: bool, drops: bool = False) -> int:
        """Their bits together. create: those that are not known; else they are left out. drops: those for which there
        is no room; else it raises KeywordsFull.
        """
        if not words:
            return 0
        known = {word.lower(): bit for bit, word in self.keywords(box).items()}
        found = 0
        for word in words:
            bit = known.get(word.lower())
            if bit is None and create:
                bit = self._free_bit(box, known, found)
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
        self, box: int, uids: Sequence[int], change: "FlagChange", unchanged_since: int | None = None
    ) -> tuple[list[tuple[int, int, int]], list[int], list[tuple[int, str]]]:
        """What has changed (uid, flags, modseq); who changed since and was left alone; names of files to change, by
        UID. Within a change.
        """
        execute = self._connection.execute
        changed: list[tuple[int, int, int]] = []
        conflicts: list[int] = []
        files: list[tuple[int, str]] = []
        modseq = 0
        for uid in uids:
            row = execute("SELECT flags, modseq, file FROM msg WHERE box = ? AND uid = ?", [box, uid]).fetchone()
            if row is None:
                continue
            if unchanged_since is not None and row[1] > unchanged_since:
                conflicts.append(uid)
                continue
            flags = change.applied(row[0])
            if flags == row[0]:
                continue
            modseq = modseq or self.next_modseq(box)
            execute("UPDATE msg SET flags = ?, modseq = ? WHERE box = ? AND uid = ?", [flags, modseq, box, uid])
            changed.append((uid, flags, modseq))
            files.append((uid, row[2]))
        return changed, conflicts, files

    def set_file(self, box: int, uid: int, name: str) -> None:
        self._connection.execute("UPDATE msg SET file = ? WHERE box = ? AND uid = ?", [name, box, uid])

    # --- expunge --------------------------------------------------------------------------------------------------

    def expunge(self, box: int, uids: Iterable[int]) -> tuple[list[int], list[str]]:
        """UIDs that were there, and the files that may go once the change is durable. Within a change."""
        execute = self._connection.execute
        gone: list[int] = []
        files: list[str] = []
        octets, modseq, now = 0, 0, time.time()
        for uid in uids:
            row = execute("DELETE FROM msg WHERE box = ? AND uid = ? RETURNING file, size", [box, uid]).fetchone()
            if row is None:
                continue
            modseq = modseq or self.next_modseq(box)
            execute("DELETE FROM meta WHERE box = ? AND uid = ?", [box, uid])
            execute(
                "INSERT OR REPLACE INTO expunged(box, uid, modseq, file, at) VALUES(?, ?, ?, ?, ?)",
                [box, uid, modseq, row[0].partition(":")[0], now],
            )
            gone.append(uid)
            files.append(str(row[0]))
            octets += row[1]
        if gone:
            execute("UPDATE quota SET octets = octets - ?, messages = messages - ?", [octets, len(gone)])
            self._forget_old(box)
        return gone, files

    def was_expunged(self, box: int, uid: int, base: str, changed: float) -> bool:
        """Was the file of this name, last changed then, that of a message that went since?"""
        row = self._connection.execute(
            "SELECT 1 FROM expunged WHERE box = ? AND uid = ? AND file = ? AND at >= ?", [box, uid, base, changed]
        ).fetchone()
        return row is not None

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
        octets, messages = self._connection.execute("SELECT octets, messages FROM quota").fetchone()
        return int(octets), int(messages)


@dataclass(frozen=True, slots=True)
class FlagChange:
    """how: -1 without, 0 exactly, 1 with these too."""

    how: int
    flags: int

    def applied(self, flags: int) -> int:
        if self.how == 0:
            return self.flags
        return flags | self.flags if self.how > 0 else flags & ~self.flags
