"""What is kept of the fields that people search for finds what a look at the headers finds."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from gateway.imap.ports import SEARCHED
from gateway.imap.texts import field_has, values_of
from gateway.mailbox import headings
from gateway.mailbox.headings import MAX_KEPT, Searched
from gateway.mailbox.maintenance import Maintenance
from gateway.mailbox.store import MessageStore
from gateway.servers.summarised import open_store, summarised
from tests.support.clock import settle

ERIN = "erin@example.org"
HEADERS = [
    b"Subject: Plain words\r\nFrom: a@one.test\r\nTo: b@two.test\r\nCc: c@three.test\r\nBcc: d@four.test\r\n",
    b'subject:folded\r\n over  lines\r\nFROM: "A, B" <ab@one.test>\r\n',
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?utf-8?q?_in_K=C3=B6ln?=\r\nFrom: =?iso-8859-1?q?J=F6rg?= <j@one.test>\r\n",
    b"Subject: first\r\nSubject: second\r\n",
    "Subject: STRAẞE und İstanbul\r\nTo: ünï@two.test\r\n".encode(),
    b"Subject: \xff\xfe octets of no charset\r\nSubject: \x00nul\r\n",
    b"Subject: =?utf-8?q?broken\r\nFrom: =?no-such?b?////?= x\r\n",
    b"Subject: \r\nTo:\r\n",
    b"X-Other: no field at all of these\r\n",
    b"Subject: short\r\nTo: " + b", ".join(b"name%d@two.test" % number for number in range(300)) + b"\r\n",
    b"Subject : blank before the colon\r\n",
    b"".join(b"Cc: c%d@three.test\r\n" % number for number in range(700)),
]
TEXTS = [
    "", "plain", "PLAIN words", "folded over", "grüße in köln", "grü", "second", "first\nsecond", "straße",
    "i̇stanbul", "octets", "\x00", "broken", "=?", "jörg", "two.test", "name299", "c650@", "short", "blank", "@", "%",
    "nothing such",
]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
    for header in HEADERS:
        append(opened, header)
    yield opened
    opened.close()


def append(store: MessageStore, header: bytes) -> int:
    return store.append(ERIN, "INBOX", [header + b"\r\nbody\r\n"], 0, [], 0.0)[1]


def search(store: MessageStore, wanted: Sequence[tuple[str, str]], name: str = "INBOX") -> Searched:
    box = store.open_box(ERIN, name, takes_recent=False).box
    for _ in range(10):
        found = store.reading.search(ERIN, box, wanted)
        if found is not None:
            return found
    raise AssertionError("never ready")


def sql(root: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(root / "example.org" / "erin" / "index.db")) as connection, connection:
        return connection.execute(statement).fetchall()


def test_it_finds_what_a_look_at_the_headers_finds(store: MessageStore) -> None:
    assert headings.FIELDS.keys() == SEARCHED
    wanted = [(field, text.lower()) for field in headings.FIELDS for text in TEXTS]
    found = search(store, wanted)
    assert found.mark == len(HEADERS) + 1
    assert found.doubtful == {uid for uid, header in enumerate(HEADERS, 1) if len(header) > MAX_KEPT}
    for (field, text), uids in zip(wanted, found.found, strict=True):
        by_look = [
            uid
            for uid, header in enumerate(HEADERS, 1)
            if uid not in found.doubtful
            and (field_has(header + b"\r\n", field, text) if text else values_of(header + b"\r\n", field))
        ]
        if "\n" not in text:
            assert uids == by_look, (field, text)


def test_what_comes_and_goes_is_followed(store: MessageStore) -> None:
    wanted = [("subject", "plain")]
    assert search(store, wanted).found == [[1]]
    uid = append(store, HEADERS[0])
    box = store.open_box(ERIN, "INBOX", takes_recent=False).box
    assert store.reading.search(ERIN, box, wanted) is None  # that one is headed now, in a turn of its own
    assert search(store, wanted).found == [[1, uid]]
    store.copy(ERIN, box, [1, 3], "Archive", moves=True)
    assert search(store, wanted).found == [[uid]]
    assert search(store, wanted, "Archive").found == [[1]]
    store.expunge(ERIN, [uid])
    assert search(store, wanted).found == [[]]
    store.delete(ERIN, "Archive")
    assert search(store, wanted).mark == uid + 1


def test_many_are_headed_in_turns(store: MessageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headings, "COUNT", 3)
    assert len(search(store, [("from", "one.test")]).found[0]) == 3


def test_a_disk_that_takes_nothing_leaves_them_doubtful(store: MessageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(headings, "keep", full)
    found = search(store, [("subject", "plain")])
    assert (found.found, found.mark) == ([[]], 1)


def test_an_index_of_before_knows_them_once_it_is_searched(store: MessageStore, tmp_path: Path) -> None:
    store.close()
    for statement in ("DROP TABLE heading", "ALTER TABLE box DROP COLUMN headed", "PRAGMA user_version=3"):
        sql(tmp_path, statement)
    assert search(store, [("subject", "plain")]).found == [[1]]


def test_check_drops_those_of_messages_that_are_not_there(store: MessageStore, tmp_path: Path) -> None:
    search(store, [("subject", "plain")])
    settle(tmp_path)
    sql(tmp_path, "UPDATE heading SET uid = 99 WHERE uid = 2")
    sql(tmp_path, "UPDATE meta SET hdr = x'00' WHERE uid = 1")
    check = Maintenance(tmp_path, summarised).check
    assert "INBOX: 1 headings of messages that are not there" in check(ERIN, mends=True, is_deep=True)
    assert check(ERIN, mends=False, is_deep=True) == []
    assert search(store, [("subject", "plain"), ("subject", "folded")]).found == [[1], [2]]
