"""Commands as values: those that real clients send, and those that nobody should."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.imap.command import (
    All,
    Append,
    Authenticate,
    Both,
    ChangedSince,
    Command,
    Copy,
    Either,
    Enable,
    ExpungeUids,
    Fetch,
    GetQuota,
    HasFlag,
    HasSize,
    HasText,
    Id,
    InSet,
    Item,
    List,
    Login,
    Not,
    OnDay,
    OnMailbox,
    Rename,
    Resync,
    Search,
    Section,
    Select,
    SequenceSet,
    Simple,
    Status,
    Store,
    Tagged,
)
from gateway.imap.parser import parse_command
from gateway.imap.syntax import BadCharset, BadCommand
from gateway.imap.wire import Bounds, CommandReader, Literal, RawCommand


def parsed(line: bytes, *, is_utf8: bool = False) -> Command:
    return parse_command(raw(line), is_utf8=is_utf8).command


def raw(line: bytes) -> RawCommand:
    reader = CommandReader(Bounds(100_000, lambda start: 100_000))
    reader.feed(b"t1 " + line + b"\r\n")
    while not isinstance(event := reader.next(), RawCommand):
        assert event is not None
    return event


def seq(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


def fields(*names: bytes, peek: bool = True) -> Section:
    label = b"BODY[HEADER.FIELDS (" + b" ".join(names) + b")]"
    return Section(label, (), "HEADER.FIELDS", names, None, peek)


CASES: list[tuple[bytes, Command]] = [
    (b"capability", Simple("CAPABILITY")),
    (b"LOGIN bob {2+}\r\npw", Login("bob", "pw")),
    (b'LOGIN "b\\"ob" "p\\\\w"', Login('b"ob', "p\\w")),
    (b"AUTHENTICATE plain", Authenticate("PLAIN", None)),
    (b"AUTHENTICATE PLAIN AGFAYg==", Authenticate("PLAIN", b"AGFAYg==")),
    (b"AUTHENTICATE PLAIN =", Authenticate("PLAIN", b"=")),
    (b"ID NIL", Id(())),
    (b'ID ("name" "Thunderbird" "version" NIL)', Id((("name", "Thunderbird"), ("version", "")))),
    (b"ENABLE QRESYNC UTF8=ACCEPT", Enable(("QRESYNC", "UTF8=ACCEPT"))),
    (b"SELECT inbox", Select("INBOX", is_read_only=False)),
    (b'SELECT "INBOX" (CONDSTORE)', Select("INBOX", is_read_only=False, with_modseq=True)),
    (b"EXAMINE Prjekt&AOk-", Select("Prjekté", is_read_only=True)),
    (
        b"SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))",
        Select("INBOX", False, True, Resync(67890007, 20050715194045000, seq((41, 41), (43, 211), (214, 541)))),
    ),
    (
        b"SELECT INBOX (QRESYNC (1 90060115194045000 41:211,214:541 (1,3 41,77)))",
        Select(
            "INBOX", False, True,
            Resync(1, 90060115194045000, seq((41, 211), (214, 541)), (seq((1, 1), (3, 3)), seq((41, 41), (77, 77)))),
        ),
    ),
    (b"SELECT INBOX (QRESYNC (1 2 (1,3 41,77)))",
     Select("INBOX", False, True, Resync(1, 2, None, (seq((1, 1), (3, 3)), seq((41, 41), (77, 77)))))),
    (b'CREATE "a b/c"', OnMailbox("CREATE", "a b/c")),
    (b"CREATE Sent2 (USE (\\Sent))", OnMailbox("CREATE", "Sent2", ("\\Sent",))),
    (b"RENAME a b", Rename("a", "b")),
    (b'GETQUOTA ""', GetQuota("")),
    (b'list (subscribed) "" "*" return (special-use)',
     List("", ("*",), frozenset({"SUBSCRIBED"}), frozenset({"SPECIAL-USE"}))),
    (b'LIST "" ""', List("", ("",))),
    (b"LIST ref/ %", List("ref/", ("%",))),
    (b'LSUB "" "*"', List("", ("*",), is_lsub=True)),
    (b'LIST "" ("INBOX" "Sent/%") RETURN (STATUS (MESSAGES UNSEEN) CHILDREN)',
     List("", ("INBOX", "Sent/%"), frozenset(), frozenset({"CHILDREN"}), ("MESSAGES", "UNSEEN"))),
    (b"STATUS INBOX (UIDNEXT UIDVALIDITY UNSEEN RECENT)",
     Status("INBOX", ("UIDNEXT", "UIDVALIDITY", "UNSEEN", "RECENT"))),
    (b"SEARCH UNANSWERED UNDELETED UNSEEN", Search(Both((
        HasFlag("\\Answered", is_set=False), HasFlag("\\Deleted", is_set=False), HasFlag("\\Seen", is_set=False))),
        is_uid=False)),
    (b"UID SEARCH *:*", Search(InSet(seq((0, 0)), is_uid=False), is_uid=True)),
    (b"UID SEARCH 1:5 SINCE 1-Feb-2026 NOT DELETED", Search(Both((
        InSet(seq((1, 5)), is_uid=False), OnDay("internal", 1, date(2026, 2, 1)), Not(HasFlag("\\Deleted")))),
        is_uid=True)),
    (b"SEARCH RETURN () ALL", Search(All(), False, frozenset({"ALL"}))),
    (b"SEARCH RETURN (MIN COUNT) CHARSET UTF-8 OR FROM {2+}\r\n\xc3\xa9 (SUBJECT x LARGER 5)",
     Search(Either(HasText("from", "é"), Both((HasText("subject", "x"), HasSize(True, 5)))), False,
            frozenset({"MIN", "COUNT"}))),
    (b'SEARCH HEADER Message-ID "<1@x>"', Search(HasText("message-id", "<1@x>"), is_uid=False)),
    (b"SEARCH HEADER X-A \"\" KEYWORD $Forwarded UID 5:*",
     Search(Both((HasText("x-a", ""), HasFlag("$Forwarded"), InSet(seq((5, 0)), is_uid=True))), is_uid=False)),
    (b"SEARCH MODSEQ 620162338", Search(ChangedSince(620162338), is_uid=False)),
    (b'SEARCH MODSEQ "/flags/\\\\draft" all 620162338', Search(ChangedSince(620162338), is_uid=False)),
    (b"FETCH 1 FULL", Fetch(seq((1, 1)), (Item.FLAGS, Item.INTERNALDATE, Item.SIZE, Item.ENVELOPE, Item.BODY), False)),
    (b"UID fetch 1:* (FLAGS)", Fetch(seq((1, 0)), (Item.FLAGS,), is_uid=True)),
    (b"UID fetch 1:60 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (From To)])",
     Fetch(seq((1, 60)), (Item.UID, Item.SIZE, fields(b"From", b"To")), is_uid=True)),
    (b"FETCH 2 BODY[]", Fetch(seq((2, 2)), (Section(b"BODY[]"),), is_uid=False)),
    (b"FETCH 2 (BODY.PEEK[1.2.MIME] BODY[TEXT]<0.100> BODY[3.HEADER] BODY[1])", Fetch(seq((2, 2)), (
        Section(b"BODY[1.2.MIME]", (1, 2), "MIME", peek=True),
        Section(b"BODY[TEXT]<0>", (), "TEXT", partial=(0, 100)),
        Section(b"BODY[3.HEADER]", (3,), "HEADER"),
        Section(b"BODY[1]", (1,)),
    ), is_uid=False)),
    (b"FETCH 1 RFC822.PEEK", Fetch(seq((1, 1)), (Section(b"RFC822", peek=True),), is_uid=False)),
    (b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345 VANISHED)", Fetch(seq((1, 0)), (Item.FLAGS,), True, 12345, True)),
    (b"STORE 1:3 +FLAGS.SILENT (\\Deleted)", Store(seq((1, 3)), 1, ("\\Deleted",), True, is_uid=False)),
    (b"uid store 3 +FLAGS ($label1)", Store(seq((3, 3)), 1, ("$label1",), False, is_uid=True)),
    (b"STORE 7 FLAGS \\seen \\Flagged", Store(seq((7, 7)), 0, ("\\Seen", "\\Flagged"), False, is_uid=False)),
    (b"STORE 7 (UNCHANGEDSINCE 5) -FLAGS ()", Store(seq((7, 7)), -1, (), False, False, 5)),
    (b"UID MOVE 2,4:7 Archive", Copy(seq((2, 2), (4, 7)), "Archive", True, moves=True)),
    (b"COPY 1 Trash", Copy(seq((1, 1)), "Trash", False, moves=False)),
    (b"UID EXPUNGE 1:3", ExpungeUids(seq((1, 3)))),
]  # fmt: skip


@pytest.mark.parametrize(("line", "command"), CASES)
def test_what_clients_send(line: bytes, command: Command) -> None:
    assert parse_command(raw(line)) == Tagged("t1", command)


def test_append() -> None:
    found = parsed(b'APPEND "Drafts" (\\Seen $x) " 1-Feb-2026 10:00:00 +0130" {5+}\r\nhello')
    assert isinstance(found, Append)
    assert (found.name, found.flags) == ("Drafts", ("\\Seen", "$x"))
    assert found.date == datetime(2026, 2, 1, 10, tzinfo=timezone(timedelta(hours=1, minutes=30)))
    assert found.message.octets() == b"hello"
    bare = parsed(b"APPEND x {0+}\r\n")
    assert isinstance(bare, Append)
    assert (bare.flags, bare.date, bare.message.size) == ((), None, 0)


def test_a_date_in_utc() -> None:
    found = parsed(b'APPEND x "31-Dec-1999 23:59:59 -0000" {0+}\r\n')
    assert isinstance(found, Append)
    assert found.date == datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC)


WRONG = [
    b"", b"FROBNICATE", b"NOOP more", b"NOOP ", b"LOGIN bob", b"LOGIN bob pw more", b"SELECT", b"SELECT a&b",
    b"SELECT ..", b"SELECT INBOX (X)", b"SELECT INBOX (CONDSTORE", b"CREATE a/../b", b"FETCH", b"FETCH 1", b"FETCH 0 FLAGS",
    b"FETCH 1:4294967296 FLAGS", b"FETCH 1, FLAGS", b"FETCH a FLAGS", b"FETCH 1 (FLAGS", b"FETCH 1 ()", b"FETCH 1 BODY[",
    b"FETCH 1 BODY[0]", b"FETCH 1 BODY[MIME]", b"FETCH 1 BODY[1.]", b"FETCH 1 BODY[]<0.0>", b"FETCH 1 BODY[]<0>",
    b"FETCH 1 (ALL)", b"FETCH 1 NONSENSE", b"FETCH 1 FLAGS (VANISHED)", b"UID FETCH 1 FLAGS (VANISHED)",
    b"FETCH 1 BODY[HEADER.FIELDS ()]", b"FETCH 1 BODY[HEADER.FIELDS]", b"STORE 1 FLAGS", b"STORE 1 FLAGS (\\Recent)",
    b"STORE 1 +FLAG (\\Seen)", b"SEARCH", b"SEARCH NOT", b"SEARCH OR ALL", b"SEARCH SINCE 31-Feb-2026",
    b"SEARCH SINCE yesterday", b"SEARCH (ALL", b"SEARCH " + b"(" * 100 + b"ALL" + b")" * 100, b"SEARCH " + b"NOT " * 100 + b"ALL",
    b"APPEND x", b"APPEND x (\\Seen)", b'APPEND x "nonsense" {0+}\r\n', b'APPEND x " 1-Feb-2026 10:00:00 +9999" {0+}\r\n',
    b"STATUS INBOX ()", b"STATUS INBOX (NONSENSE)", b'LIST "" "*" RETURN (NONSENSE)', b'LIST (RECURSIVEMATCH) "" "*"',
    b"UID NOOP", b"UID", b"ENABLE", b"ID", b"ID (", b"COPY 1", b"UID EXPUNGE", b'LOGIN "a', b"LOGIN a\x00b c",
    b"LOGIN " + b"a" * 10 + b" {2}",
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_refused_with_its_tag(line: bytes) -> None:
    command = RawCommand([b"t1 " + line]) if line.endswith(b"{2}") else raw(line)
    with pytest.raises(BadCommand) as error:
        parse_command(command)
    assert error.value.tag == "t1"
    assert str(error.value).isprintable()


def test_a_charset_that_is_not_known_is_refused_in_its_own_way() -> None:
    with pytest.raises(BadCharset):
        parsed(b"SEARCH CHARSET KOI8-R SUBJECT x")


@pytest.mark.parametrize("line", [b"", b" NOOP", b"* NOOP", b"+ NOOP", b"(a NOOP", b"\xff NOOP"])
def test_without_a_tag_there_is_none_to_answer_to(line: bytes) -> None:
    with pytest.raises(BadCommand) as error:
        parse_command(RawCommand([line]))
    assert error.value.tag == ""


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
def test_any_octets_are_a_command_or_refused(texts: list[bytes]) -> None:
    literals = [Literal(1, BytesIO(b"x")) for _ in texts[1:]]
    with suppress(BadCommand):
        parse_command(RawCommand(texts, literals))


PIECES = st.sampled_from(
    b't1 |FETCH|UID|SEARCH|STORE|LIST|APPEND|SELECT|NOT|OR|ALL|(|)|[|]|<|>|{3+}\r\nabc|"|\\|*|%|1:*|0|$|,|BODY|HEADER.FIELDS| |RETURN'.split(
        b"|"
    )
)


@given(st.lists(PIECES, max_size=20))
def test_any_row_of_tokens_is_a_command_or_refused(pieces: list[bytes]) -> None:
    reader = CommandReader(Bounds(10_000, lambda start: 100))
    reader.feed(b"t1 " + b"".join(pieces) + b"\r\n")
    while (event := reader.next()) is not None:
        if isinstance(event, RawCommand):
            with suppress(BadCommand):
                parse_command(event)
