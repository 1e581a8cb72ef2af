"""FETCH and SEARCH of many messages: whatever is looked up or sent at once, the answer is the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.imap import fetcher, finder
from gateway.mailbox import index
from tests.support.imapsessions import Talk, literal, store_server

LARGE = b"Subject: large\r\n\r\n" + b"y" * 300_000 + b"\r\n"
NESTED = (
    b"Subject: nested\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nneedle\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: 100% inner\r\n\r\nin\0it\r\n--b--\r\n"
)
ITEMS = (
    "UID FLAGS", "FLAGS MODSEQ", "RFC822.SIZE INTERNALDATE", "ENVELOPE UID BODY", "BODYSTRUCTURE",
    "BODY.PEEK[HEADER.FIELDS (Subject \"%d\")] FLAGS", "BODY.PEEK[HEADER.FIELDS.NOT (Subject)]<0.9> UID",
    "BODY.PEEK[HEADER]", "BODY.PEEK[] UID", "UID BODY.PEEK[1] BODY.PEEK[2.HEADER] BODY.PEEK[2] FLAGS",
    "BODY.PEEK[TEXT]<3.7> BODY.PEEK[7]", "RFC822.SIZE BODY.PEEK[] BODY.PEEK[TEXT] ENVELOPE", "BODY[1]",
)  # fmt: skip
KEYS = (
    "SUBJECT nested", "BODY needle", "TEXT 17", "OR SUBJECT large BODY needle", "NOT TEXT number", "2:30 UNSEEN",
    "LARGER 1000", "NOT (OR 1:5 UNSEEN)", "SENTSINCE 1-Jan-2000", "UNSEEN HEADER Subject \"\"", "UID 3:5,9:* 4:20",
    "OR KEYWORD odd (3:9 ANSWERED)", "OR NOT 2:* SMALLER 100", "SUBJECT 17 ALL",
)  # fmt: skip


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    server = store_server(tmp_path)
    opened = Talk(server)
    for number in range(40):
        octets = (
            NESTED if number % 7 == 3 else LARGE if number in (5, 20) else b"Subject: number %d\r\n\r\n\r\n" % number
        )
        opened.ask(b"APPEND INBOX (%b) " % (b"\\Seen \\Answered" if number % 3 else b"odd") + literal(octets))
    opened.ask("SELECT INBOX")
    opened.ask("STORE 8,9,30 +FLAGS.SILENT (\\Deleted)")
    opened.ask("EXPUNGE")
    yield opened
    server.store.close()


@pytest.fixture(params=[1, 2, 7])
def small(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


def shrink(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for room, name, value in (
        (fetcher, "BATCH", 3 * count), (fetcher, "FREE_BATCH", count), (fetcher, "LINES", count),
        (fetcher, "GROUP", 200 * count), (finder, "BATCH", 3 * count), (finder, "GROUP", 200 * count),
        (finder, "STRETCH", 5 * count), (index, "ROWS", count), (index, "MAX_OCTETS", 30 * count),
    ):  # fmt: skip
        monkeypatch.setattr(room, name, value)


def test_fetch_in_small_batches_says_the_same(talk: Talk, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for items in ITEMS:
        talk.ask("STORE 1:* -FLAGS.SILENT (\\Seen)")
        whole = talk.ask(f"FETCH 1:* ({items})")
        if "BODY[" in items:
            talk.ask("STORE 1:* -FLAGS.SILENT (\\Seen)")
        with monkeypatch.context() as context:
            shrink(context, small)
            again = talk.ask(f"FETCH 1:* ({items})")
        assert _without_modseq(again) == _without_modseq(whole), items
        assert whole.count(b" FETCH (") == 37


def _without_modseq(answer: bytes) -> list[bytes]:
    return [part.partition(b")")[2] for part in answer.split(b"MODSEQ (")] if b"BODY[1]" in answer else [answer]


def test_search_in_small_batches_finds_the_same(talk: Talk, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        whole = talk.ask(f"SEARCH {key}")
        with monkeypatch.context() as context:
            shrink(context, small)
            assert talk.ask(f"SEARCH {key}") == whole, key
    assert talk.ask("SEARCH BODY needle") == b"* SEARCH 4 9 16 23 29 36\r\nt OK Found\r\n"
    assert talk.ask("SEARCH NOT (OR 1:5 UNSEEN)") == talk.ask("SEARCH 6:* SEEN")


def test_messages_that_are_gone_are_left_out_and_the_answer_says_so(talk: Talk, tmp_path: Path) -> None:
    cur = next((tmp_path / "mail").glob("*/alice/Maildir/cur"))
    for uid in (4, 6):
        (path,) = cur.glob(f"*,U={uid}:*")
        path.unlink()
    answer = talk.ask("FETCH 2:7 (UID BODY.PEEK[])")
    assert [line.split()[1] for line in answer.split(b"\r\n") if b" FETCH (UID" in line] == [b"2", b"3", b"5", b"7"]
    assert b"t NO [EXPUNGEISSUED]" in answer


def test_what_is_told_of_a_message_is_in_its_place(talk: Talk) -> None:
    answer = talk.ask("FETCH 4 (UID BODY.PEEK[2.HEADER] BODY.PEEK[2.TEXT] BODY.PEEK[9] RFC822.SIZE)")
    expected = (
        b"BODY[2.HEADER] {23}\r\nSubject: 100%% inner\r\n\r\n BODY[2.TEXT] {5}\r\nin?it BODY[9] NIL RFC822.SIZE %d)"
    )
    assert expected % len(NESTED) in answer
    assert talk.ask(f"FETCH 6 (BODY.PEEK[]<{len(LARGE) - 4}.9>)").startswith(
        b"* 6 FETCH (BODY[]<300016> {4}\r\nyy\r\n)"
    )
