"""spam.db: lessons come back as they were put, those of older versions too, and the oldest give way."""

import sqlite3
from array import array
from contextlib import closing
from pathlib import Path

import pytest

from gateway.spam.lessons import Lesson
from gateway.spam.tokens import Tokens
from gateway.storage.sqlite import prepare
from gateway.storage.sqlite_spam import MIGRATIONS, SqliteLessons, learnt

TOKENS = Tokens((1, 2), (3,), (4,), (300_000, 5), (400_000,))


def test_lessons_come_back_as_they_were_put(tmp_path: Path) -> None:
    with closing(SqliteLessons(tmp_path / "spam.db")) as store:
        store.put(Lesson(b"one", True, 10.0, TOKENS))
        store.put(Lesson(b"two", False, 20.0, Tokens((), (), ())))
        assert (store.find(b"one"), store.find(b"two"), store.find(b"three")) == (True, False, None)
    with closing(SqliteLessons(tmp_path / "spam.db")) as store:
        assert list(store.all()) == [
            Lesson(b"one", True, 10.0, TOKENS),
            Lesson(b"two", False, 20.0, Tokens((), (), ())),
        ]
        assert store.remove_before(15.0) == 1
    found = learnt(tmp_path / "spam.db")
    assert (found.spam, found.ham, found.oldest) == (0, 1, 20.0)


def test_lessons_of_a_version_that_knew_three_kinds_are_kept(tmp_path: Path) -> None:
    prepare(tmp_path / "spam.db", MIGRATIONS[:1])
    kinds = [array("I", kind).tobytes() for kind in TOKENS.kinds[:3]]
    with closing(sqlite3.connect(tmp_path / "spam.db")) as connection, connection:
        connection.execute(
            "INSERT INTO lesson(digest, spam, at, words, header, structure) VALUES(?, 1, 10.0, ?, ?, ?)",
            [b"old", *kinds],
        )
    with closing(SqliteLessons(tmp_path / "spam.db")) as store:
        assert list(store.all()) == [Lesson(b"old", True, 10.0, Tokens((1, 2), (3,), (4,)))]


def test_the_oldest_lessons_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.storage.sqlite_spam.MAX_LESSONS", 3)
    with closing(SqliteLessons(tmp_path / "spam.db")) as store:
        for number in range(5):
            store.put(Lesson(b"%d" % number, True, float(number), TOKENS))
    with closing(SqliteLessons(tmp_path / "spam.db")) as store:
        assert [lesson.digest for lesson in store.all()] == [b"2", b"3", b"4"]
