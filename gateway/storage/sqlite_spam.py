"""spam.db: the messages that people have judged, as the tokens that the filter learns (`spam.lessons.LessonStore`).

No text of a message is in it: only numbers of buckets, from which no word can be told.
"""

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.spam.lessons import Lesson
from gateway.spam.tokens import Tokens
from gateway.storage.sqlite import connect, prepare

MIGRATIONS = (
    """
    CREATE TABLE lesson(
        number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, spam INTEGER NOT NULL, at REAL NOT NULL,
        words BLOB NOT NULL, header BLOB NOT NULL, structure BLOB NOT NULL);
    CREATE INDEX lesson_at ON lesson(at)
    """,
    """
    ALTER TABLE lesson ADD COLUMN letters BLOB NOT NULL DEFAULT x'';
    ALTER TABLE lesson ADD COLUMN subject BLOB NOT NULL DEFAULT x''
    """,
)
MAX_LESSONS = 20_000  # the oldest give way


@dataclass(frozen=True, slots=True)
class Learnt:
    """oldest: in seconds since the epoch, None without lessons."""

    spam: int
    ham: int
    oldest: float | None


class SqliteLessons:
    """For one process at a time: whoever opens it holds the lock until it is closed."""

    def __init__(self, path: Path) -> None:
        prepare(path, MIGRATIONS)
        self._connection = connect(path, durable=False)
        self._connection.execute("BEGIN IMMEDIATE")

    def close(self) -> None:
        """All that was put is kept."""
        with closing(self._connection):
            self._connection.execute(
                "DELETE FROM lesson WHERE number IN (SELECT number FROM lesson ORDER BY number DESC LIMIT -1 OFFSET ?)",
                [MAX_LESSONS],
            )
            self._connection.execute("COMMIT")

    def find(self, digest: bytes) -> bool | None:
        row = self._connection.execute("SELECT spam FROM lesson WHERE digest = ?", [digest]).fetchone()
        return None if row is None else bool(row[0])

    def put(self, lesson: Lesson) -> None:
        tokens = (_packed(kind) for kind in lesson.tokens.kinds)
        self._connection.execute(
            "INSERT OR REPLACE INTO lesson(digest, spam, at, words, header, structure, letters, subject)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            [lesson.digest, lesson.is_spam, lesson.at, *tokens],
        )

    def remove(self, digest: bytes) -> bool:
        return self._connection.execute("DELETE FROM lesson WHERE digest = ?", [digest]).rowcount > 0

    def remove_before(self, at: float) -> int:
        return self._connection.execute("DELETE FROM lesson WHERE at < ?", [at]).rowcount

    def all(self) -> Iterator[Lesson]:
        rows = self._connection.execute(
            "SELECT digest, spam, at, words, header, structure, letters, subject FROM lesson ORDER BY number"
        )
        for digest, is_spam, at, *kinds in rows:
            words, header, structure, letters, subject = map(_unpacked, kinds)
            yield Lesson(digest, bool(is_spam), at, Tokens(words, header, structure, letters, subject))


def learnt(path: Path) -> Learnt:
    """Without the lock. Raises sqlite3.Error where there is no such database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        spam, count, oldest = connection.execute(
            "SELECT coalesce(sum(spam), 0), count(*), min(at) FROM lesson"
        ).fetchone()
        return Learnt(spam, count - spam, oldest)


def _packed(kind: Sequence[int]) -> bytes:
    return array("I", kind).tobytes()


def _unpacked(octets: bytes) -> tuple[int, ...]:
    return tuple(array("I", octets))
