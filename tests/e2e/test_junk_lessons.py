"""Users teach the spam filter by moving mail into Junk and out of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.mailbox.store import MessageStore
from gateway.servers import junk
from gateway.servers.junk import JunkLessons
from gateway.servers.summarised import open_store
from gateway.spam.lesson_spool import MAX_WAITING, LessonSpool
from gateway.storage.counters import SharedCounters
from tests.support.gateway import Gateway
from tests.support.imapwire import Wire
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway

OLGA = "olga@example.org"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(users=(OLGA,)) as running:
        yield running


def learnt(gateway: Gateway) -> tuple[int, int]:
    """Spam and wanted mail."""
    (row,) = json.loads(gateway.cli("spam", "stats", "--json").expect().stdout)
    return row["learnt_spam"], row["learnt_ham"]


def mail(number: int) -> bytes:
    text = " ".join(f"word{number}x{each}" for each in range(50))
    return (
        f"From: a@elsewhere.test\r\nSubject: cheap {number}\r\nMessage-ID: <{number}@x.test>\r\n\r\n{text}\r\n".encode()
    )


def probability(gateway: Gateway, number: int) -> float:
    return float(gateway.cli("spam", "score", data=mail(number)).expect().stdout.split()[0])


def test_moves_into_junk_and_out_of_it_are_learnt(gateway: Gateway) -> None:
    for number in range(4):
        gateway.send(OLGA, mail(number))
    gateway.wait_mails(OLGA, 4)
    before = probability(gateway, 0)
    with Wire(gateway, user=OLGA) as wire:
        wire.ask("SELECT INBOX")
        assert b"t OK" in wire.ask("MOVE 1 Junk")
        wait_until(lambda: learnt(gateway) == (1, 0), 20, "the first lesson")
        assert probability(gateway, 0) > before
        assert b"t OK" in wire.ask("COPY 1 Junk")  # programs without MOVE
        wait_until(lambda: learnt(gateway) == (2, 0), 20, "the second")
        assert b"t OK" in wire.ask("MOVE 1 Archive")  # says nothing
        wire.ask("SELECT Junk")
        assert b"t OK" in wire.ask("COPY 1:2 Trash")  # says nothing either
        assert b"t OK" in wire.ask("MOVE 1 INBOX")  # was no spam after all
        wait_until(lambda: learnt(gateway) == (1, 1), 20, "the lesson to be taken back")
    assert list((gateway.data / "lessons").iterdir()) == []
    assert len(gateway.mails(OLGA)) == 3


# --- bounds -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    (tmp_path / "mail").mkdir()
    opened = open_store(tmp_path / "mail")
    yield opened
    opened.close()


def test_a_user_can_say_so_of_some_a_day(store: MessageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junk, "MAX_A_DAY", 3)
    counters = SharedCounters()
    counters.attach(0)
    lessons = JunkLessons(store, counters, LessonSpool(tmp_path / "lessons"))
    uids = [store.append(OLGA, "Junk", [mail(number)], 0, [], 0.0)[1] for number in range(5)]
    inbox = store.box(OLGA, "INBOX")
    assert inbox is not None
    assert lessons.copied(OLGA, inbox, "Junk", uids) == 3
    assert lessons.copied(OLGA, inbox, "Junk", uids) == 0
    assert lessons.copied("other@example.org", inbox, "Junk", uids) == 0  # has no such messages
    assert JunkLessons(store, counters, None).copied(OLGA, inbox, "Junk", uids) == 0
    waiting = LessonSpool(tmp_path / "lessons").waiting(10)
    assert [(each.is_spam, each.path.read_bytes()) for each in waiting] == [(True, mail(n)) for n in range(3)]


def test_so_many_wait_and_no_more(tmp_path: Path) -> None:
    spool = LessonSpool(tmp_path / "lessons")
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert all(spool.put(file, is_spam=False) for _ in range(MAX_WAITING))
    assert not spool.put(file, is_spam=True)
    assert not LessonSpool(tmp_path / "others").put(tmp_path / "gone", is_spam=True)
    assert LessonSpool(tmp_path / "none").waiting(5) == []
