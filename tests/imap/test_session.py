"""Commands of a session over a real store: the traps that clients meet, each as the client says it."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.message.mime import walk
from tests.support.hostile import all_messages
from tests.support.imapsessions import ALICE, Talk, literal, store_server
from tests.support.process import wait_until

MULTIPART = (
    b"From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nTo: b@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Mon, 30 Nov 2026 23:59:00 -0500\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"pre\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ==\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nX: y\r\n\r\ninner body\r\n--b--\r\n"
)
PLAIN = b"From: a@example.org\r\nSubject: plain\r\n\r\none\r\ntwo\r\n"


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    server = store_server(tmp_path)
    server.store.create(ALICE, "Full")
    opened = Talk(server)
    for octets in (PLAIN, MULTIPART):
        opened.ask(b"APPEND Full " + literal(octets))
    yield opened
    server.store.close()


def fetched(answer: bytes, label: str) -> bytes:
    """The literal or quoted string behind a label."""
    match = re.search(re.escape(label.encode()) + rb" (?:\{(\d+)\}\r\n|\"([^\"]*)\")", answer)
    assert match is not None, answer
    return match[2] if match[1] is None else answer[match.end() : match.end() + int(match[1])]


# --- FETCH --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "label", "expected"),
    [
        ("BODY.PEEK[]", "BODY[]", MULTIPART),
        ("BODY.PEEK[]<10.5>", "BODY[]<10>", MULTIPART[10:15]),
        ("BODY.PEEK[]<0.99999>", "BODY[]<0>", MULTIPART),
        ("BODY.PEEK[]<99999.5>", "BODY[]<99999>", b""),
        ("BODY.PEEK[HEADER.FIELDS (subject X-None)]", "BODY[HEADER.FIELDS (subject X-None)]",
         b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"),
        ("BODY.PEEK[1]", "BODY[1]", b"R3LDvMOfZQ=="),
        ("BODY.PEEK[1.MIME]", "BODY[1.MIME]",
         b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
        ("BODY.PEEK[2.HEADER]", "BODY[2.HEADER]", b"Subject: inner\r\nX: y\r\n\r\n"),
        ("BODY.PEEK[2.TEXT]", "BODY[2.TEXT]", b"inner body"),
        ("BODY.PEEK[2.HEADER.FIELDS.NOT (x)]", "BODY[2.HEADER.FIELDS.NOT (x)]", b"Subject: inner\r\n\r\n"),
        ("BODY.PEEK[2.1]", "BODY[2.1]", b"inner body"),
        ("RFC822.HEADER", "RFC822.HEADER", MULTIPART[: MULTIPART.index(b"\r\n\r\n") + 4]),
    ],
)  # fmt: skip
def test_sections(talk: Talk, item: str, label: str, expected: bytes) -> None:
    talk.ask("EXAMINE Full")
    assert fetched(talk.ask(f"FETCH 2 ({item})"), label) == expected


def test_a_part_that_is_not_there_is_nil_and_size_is_the_literal_s(talk: Talk) -> None:
    talk.ask("SELECT Full")
    assert b"BODY[7] NIL" in talk.ask("FETCH 2 (BODY.PEEK[7])")
    answer = talk.ask("FETCH 1 (RFC822.SIZE BODY.PEEK[])")
    assert b"RFC822.SIZE %d " % len(PLAIN) in answer
    assert fetched(answer, "BODY[]") == PLAIN


def test_a_body_that_is_fetched_is_seen_unless_peeked_or_only_examined(talk: Talk) -> None:
    talk.ask("EXAMINE Full")
    assert b"\\Seen" not in talk.ask("FETCH 1 (BODY[TEXT] FLAGS)")
    assert talk.ask("STORE 1 +FLAGS (\\Seen)").startswith(b"t NO [READ-ONLY]")
    talk.ask("SELECT Full")
    assert b"\\Seen" not in talk.ask("FETCH 1 (BODY.PEEK[TEXT] FLAGS)")
    assert b"FLAGS (\\Seen" in talk.ask("FETCH 1 BODY[TEXT]")


def test_uid_stands_once_and_unknown_uids_are_no_error(talk: Talk) -> None:
    talk.ask("SELECT Full")
    assert talk.ask("UID FETCH 1:2 (UID FLAGS)").count(b"UID ") == 2
    assert talk.ask("UID FETCH 77 FLAGS") == b"t OK Fetched\r\n"
    assert talk.ask("UID STORE 77 +FLAGS (\\Seen)") == b"t OK Stored\r\n"
    assert talk.ask("UID COPY 77 INBOX").startswith(b"t OK")
    assert b"* 2 FETCH" in talk.ask("UID FETCH 61:* (FLAGS)")
    assert b"* 1 FETCH" not in talk.ask("UID FETCH 61:* (FLAGS)")
    assert talk.ask("FETCH 3 FLAGS").startswith(b"t BAD")
    talk.ask("SELECT INBOX")
    assert talk.ask("UID FETCH 1:* FLAGS") == talk.ask("FETCH 1:* FLAGS") == b"t OK Fetched\r\n"
    assert talk.ask("FETCH 1 FLAGS").startswith(b"t BAD")


def test_hostile_messages_are_told_as_they_are(tmp_path: Path) -> None:
    server = store_server(tmp_path)
    talk = Talk(server)
    messages = [octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for octets in all_messages().values()]
    messages = [octets for octets in messages if len(octets) < 900_000]
    for octets in messages:
        assert talk.ask(b"APPEND INBOX " + literal(octets)).startswith(b"t OK"), octets[:80]
    talk.ask("SELECT INBOX")
    for number, octets in enumerate(messages, 1):
        answer = talk.ask(f"FETCH {number} (ENVELOPE BODYSTRUCTURE BODY RFC822.SIZE BODY.PEEK[1.MIME] BODY.PEEK[])")
        assert answer.endswith(b"t OK Fetched\r\n")
        assert fetched(answer, "BODY[]") == octets.replace(b"\0", b"?")
        assert len(walk(octets).parts) >= 1
    server.store.close()


# --- what others do -----------------------------------------------------------------------------------------------


def test_nothing_is_expunged_while_numbers_count(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        for _ in range(3):
            await one.run(b"APPEND INBOX " + literal(PLAIN))
        for each in (one, two):
            await each.run("SELECT INBOX")
        await two.run("STORE 1 +FLAGS (\\Deleted)")
        assert b"* 1 EXPUNGE\r\n" in await two.run("EXPUNGE")
        for command in ("FETCH 2:3 FLAGS", "STORE 3 +FLAGS (\\Seen)", "SEARCH ALL"):
            assert b"EXPUNGE\r\n" not in await one.run(command)
        assert b"EXPUNGEISSUED" in await one.run("FETCH 1 BODY.PEEK[]")
        assert b"* 1 EXPUNGE\r\n" in await one.run("UID SEARCH ALL")
        assert b"* SEARCH 1 2\r\n" in await one.run("SEARCH ALL")
        server.store.close()

    asyncio.run(run())


def test_a_mailbox_that_is_deleted_under_a_session_ends_it(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        await one.run("CREATE x")
        await one.run("SELECT x")
        await two.run("DELETE x")
        assert await one.run("NOOP") == b"* BYE The mailbox is gone\r\nt OK Done\r\n"
        assert one.session.is_over
        await two.run("CREATE y")
        await two.run("SELECT y")
        assert await two.run("DELETE y") == b"t OK Done\r\n"
        assert b"t BAD" in await two.run("FETCH 1:* FLAGS")
        assert not two.session.is_over
        server.store.close()

    asyncio.run(run())


def test_a_client_that_comes_back_is_told_what_it_missed(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        for _ in range(4):
            await one.run(b"APPEND INBOX " + literal(PLAIN))
        answer = await one.run("SELECT INBOX")
        validity = int(re.search(rb"UIDVALIDITY (\d+)", answer)[1])  # type: ignore[index]
        modseq = int(re.search(rb"HIGHESTMODSEQ (\d+)", answer)[1])  # type: ignore[index]
        await one.run("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
        await one.run("EXPUNGE")
        await one.run("STORE 1 +FLAGS (\\Flagged)")
        assert (await two.run(f"SELECT INBOX (QRESYNC ({validity} {modseq}))")).startswith(b"t BAD")
        await two.run("ENABLE QRESYNC")
        answer = await two.run(f"SELECT INBOX (QRESYNC ({validity} {modseq} 1:4))")
        assert b"* VANISHED (EARLIER) 2:3\r\n* 1 FETCH (UID 1 FLAGS (\\Flagged) MODSEQ (" in answer
        answer = await two.run(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} VANISHED)")
        assert b"* VANISHED (EARLIER) 2:3\r\n* 1 FETCH (UID 1 " in answer
        assert b"VANISHED" not in await two.run(f"SELECT INBOX (QRESYNC (1 {modseq}))")  # another validity: all anew
        await one.run("STORE 1 +FLAGS.SILENT (\\Seen)")
        answer = await two.run(f"UID STORE 1 (UNCHANGEDSINCE {modseq}) +FLAGS (\\Draft)")
        assert b"[MODIFIED 1]" in answer
        assert b"\\Draft" not in answer
        server.store.close()

    asyncio.run(run())


# --- mailboxes ----------------------------------------------------------------------------------------------------


def test_names_of_mailboxes(talk: Talk) -> None:
    assert talk.ask('CREATE "Prjekt&AOk- &- Co/sub"').startswith(b"t OK")
    assert b'"Prjekt&AOk- &- Co/sub"' in talk.ask('LIST "" "*"')
    assert talk.ask('LIST "" "%"').count(b"* LIST") == 8
    assert talk.ask('SELECT "inbox"').endswith(b"[READ-WRITE] Opened\r\n")
    for wrong in ('"a&b"', '"&AAA-"', '"a//b"', '"../x"', '"a*"', '""'):
        assert re.search(rb"^t (BAD|NO)", talk.ask_or_bad(f"CREATE {wrong}")), wrong
    talk.ask("ENABLE UTF8=ACCEPT")
    assert '"Prjekté & Co/sub"'.encode() in talk.ask('LIST "" "*"')
    assert talk.ask('SELECT "Prjekté & Co/sub"').endswith(b"Opened\r\n")


def test_special_uses_subscriptions_and_status(talk: Talk) -> None:
    answer = talk.ask('LIST (SUBSCRIBED) "" "*" RETURN (SPECIAL-USE STATUS (MESSAGES UNSEEN))')
    assert b"\\Sent" in answer
    assert b"* STATUS INBOX (MESSAGES 0 UNSEEN 0)" in answer
    assert b"Full" not in answer
    talk.ask("SUBSCRIBE Full")
    assert b"Full" in talk.ask('LSUB "" "*"')
    assert b"* STATUS Full (MESSAGES 2 UIDNEXT 3 SIZE %d)" % (len(PLAIN) + len(MULTIPART)) in talk.ask(
        "STATUS Full (MESSAGES UIDNEXT SIZE)"
    )
    assert talk.ask("STATUS None (MESSAGES)").startswith(b"t NO [NONEXISTENT]")
    assert talk.ask(b"APPEND None " + literal(PLAIN)).startswith(b"t NO [TRYCREATE]")
    assert talk.ask("CREATE Full").startswith(b"t NO [ALREADYEXISTS]")
    assert talk.ask("DELETE INBOX").startswith(b"t NO [CANNOT]")


# --- SEARCH -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("ALL", b"1 2"),
        ("SUBJECT grüße", b"2"),
        ("FROM jörg", b"2"),
        ("BODY grüße", b"2"),
        ("TEXT one", b"1"),
        ("NOT TEXT one", b"2"),
        ("OR SUBJECT plain FROM jörg", b"1 2"),
        ("HEADER X-None \"\"", b""),
        ("SENTON 30-Nov-2026", b"2"),
        ("SENTSINCE 1-Dec-2026", b""),
        ("LARGER 100", b"2"),
        ("SMALLER 100 UNSEEN", b"1"),
        ("UID 2", b"2"),
        ("2:*", b"2"),
        ("KEYWORD none", b""),
        ("UNKEYWORD none", b"1 2"),
        ("SINCE 1-Jan-2020 BEFORE 1-Jan-2100", b"1 2"),
    ],
)  # fmt: skip
def test_search(talk: Talk, keys: str, found: bytes) -> None:
    talk.ask("SELECT Full")
    text = b""
    for word in re.findall(rb'"[^"]*"|\S+', keys.encode()):
        text += b" " + (word if word.isascii() else literal(word))
    answer = talk.ask(b"SEARCH CHARSET UTF-8" + text)
    assert (b"* SEARCH " + found).strip() + b"\r\n" in answer
    assert answer.endswith(b"t OK Found\r\n")


def test_extended_search(talk: Talk) -> None:
    talk.ask("SELECT Full")
    answer = talk.ask("UID SEARCH RETURN (MIN MAX COUNT ALL) ALL")
    assert re.search(rb'^\* ESEARCH \(TAG "t\d+"\) UID MIN 1 MAX 2 ALL 1:2 COUNT 2\r\n', answer)


# --- APPEND, COPY, MOVE -------------------------------------------------------------------------------------------


def test_append_copy_and_move_tell_uids(talk: Talk) -> None:
    answer = talk.ask(
        b'APPEND Sent (\\Seen $Label) "01-Feb-2020 10:00:00 +0100" ' + literal(b"A: b\n\nbare\nlines\r\n")
    )
    assert re.search(rb"^t OK \[APPENDUID \d+ 1\]", answer)
    talk.ask("SELECT Sent")
    answer = talk.ask("FETCH 1 (INTERNALDATE FLAGS RFC822.SIZE BODY.PEEK[])")
    assert b'INTERNALDATE " 1-Feb-2020 09:00:00 +0000"' in answer
    assert fetched(answer, "BODY[]") == b"A: b\r\n\r\nbare\r\nlines\r\n"
    assert re.search(rb"^t OK \[COPYUID \d+ 1 1\] Copied", talk.ask("COPY 1 Archive"))
    answer = talk.ask("MOVE 1 Trash")
    assert re.search(rb"^\* OK \[COPYUID \d+ 1 1\] Moved\r\n\* 1 EXPUNGE\r\n(.*\r\n)*t OK Moved", answer)
    assert talk.ask("COPY 1 Trash").startswith(b"t BAD")
    talk.ask("SELECT Trash")
    assert b"$Label" in talk.ask("FETCH 1 FLAGS")
    assert talk.ask("UID COPY 1 Nowhere").startswith(b"t NO [TRYCREATE]")


def test_close_expunges_without_a_word_and_unselect_does_not(talk: Talk) -> None:
    talk.ask("SELECT Full")
    talk.ask("STORE 1 +FLAGS.SILENT (\\Deleted)")
    talk.ask("UNSELECT")
    assert b"* 2 EXISTS" in talk.ask("SELECT Full")
    assert talk.ask("CLOSE") == b"t OK Closed\r\n"
    assert b"* 1 EXISTS" in talk.ask("SELECT Full")


def test_a_file_that_vanished_is_told_and_the_session_goes_on(talk: Talk, tmp_path: Path) -> None:
    folder = tmp_path / "mail" / "example.org" / "alice" / "Maildir" / ".Full" / "cur"
    talk.ask("SELECT Full")
    next(path for path in folder.iterdir() if "U=1:" in path.name).unlink()
    answer = talk.ask("FETCH 1:2 (BODY.PEEK[])")
    assert answer.startswith(b"* 2 FETCH")
    assert b"t NO [EXPUNGEISSUED]" in answer
    wait_until(lambda: b"* 1 EXPUNGE\r\n" in talk.ask("NOOP"), 10, "the news")
    assert b"* 1 EXISTS" in talk.ask("SELECT Full")


# --- what an attack found -----------------------------------------------------------------------------------------


def test_a_deleted_mailbox_s_session_never_sees_another(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        await one.run("CREATE Old")
        await one.run(b"APPEND Old " + literal(PLAIN))
        await two.run("SELECT Old")
        await one.run("DELETE Old")
        await one.run("CREATE Precious")
        await one.run(b"APPEND Precious " + literal(PLAIN))
        for command in ("UID STORE 1 +FLAGS (\\Deleted)", "EXPUNGE", "UID FETCH 1 FLAGS"):
            await two.run(command)
        assert b"MESSAGES 1 " in await one.run("STATUS Precious (MESSAGES UIDNEXT)")
        server.store.close()

    asyncio.run(run())


def test_a_name_that_makes_no_folder_changes_nothing(talk: Talk) -> None:
    long = "x." * 95
    assert talk.ask_or_bad(f"RENAME Full {long}").startswith(b"t BAD")
    assert talk.ask_or_bad(f"CREATE {long}").startswith(b"t BAD")
    talk.ask(f"CREATE Full/{'c' * 50}")
    assert talk.ask(f"RENAME Full {'d' * 190}").startswith(b"t NO [CANNOT]")
    assert b"* 2 EXISTS" in talk.ask("SELECT Full")
    assert fetched(talk.ask("FETCH 1 BODY.PEEK[]"), "BODY[]") == PLAIN


def test_renames_that_meet_others(talk: Talk) -> None:
    for name in ("a/x", "b/x", "Foo/Bar"):
        talk.ask(f"CREATE {name}")
    talk.ask("DELETE b")
    assert talk.ask("RENAME a b").startswith(b"t NO [ALREADYEXISTS]")
    talk.ask("DELETE Foo")
    assert talk.ask("RENAME Foo Baz").startswith(b"t OK")
    assert talk.ask("STATUS Baz/Bar (MESSAGES)").endswith(b"t OK Done\r\n")
    assert talk.ask("CREATE Trailing/").startswith(b"t OK")
    assert b" Trailing\r\n" in talk.ask('LIST "" Trail*')


def test_what_lies_in_the_way_of_a_rename_is_set_aside(talk: Talk, tmp_path: Path) -> None:
    folder = tmp_path / "mail" / "example.org" / "alice" / "Maildir"
    (folder / ".New" / "cur").mkdir(parents=True)
    (folder / ".New" / "cur" / "stray").write_bytes(b"x")
    assert talk.ask("RENAME Full New").startswith(b"t OK")
    talk.ask("SELECT New")
    assert fetched(talk.ask("FETCH 1 BODY.PEEK[]"), "BODY[]") == PLAIN
    assert [path.read_bytes() for path in folder.glob("aside-*/cur/stray")] == [b"x"]


@pytest.mark.parametrize(
    "date", ["01-Jan-0001 00:00:00 +0100", "31-Dec-9999 23:59:59 -0100", "02-Jan-0999 00:00:00 +0000"]
)
def test_no_date_makes_a_message_that_cannot_be_fetched(talk: Talk, date: str) -> None:
    assert talk.ask(f'APPEND INBOX "{date}" '.encode() + literal(PLAIN)).startswith(b"t OK")
    talk.ask("SELECT INBOX")
    assert re.search(rb'INTERNALDATE "[ \d]\d-\w{3}-\d{4} ', talk.ask("FETCH 1 INTERNALDATE"))
    assert talk.ask("SEARCH BEFORE 1-Jan-2026").endswith(b"t OK Found\r\n")


def test_work_is_in_proportion_to_what_is_asked(talk: Talk) -> None:
    """Each of these took seconds to minutes; the time-out of the tests is generous."""
    began = time.process_time()
    lines = (b"a" * 8000 + b"\r\n") * 28
    words = b"To: " + b"a " * 8000 + b"@" + b" :" * 8000 + b"\r\n"
    for octets in (lines + b"\r\nx\r\n", words + b"\r\nx\r\n"):
        talk.ask(b"APPEND INBOX " + literal(octets))
    for _ in range(20):
        talk.ask(b"APPEND Full " + literal(PLAIN))
    talk.ask("SELECT INBOX")
    talk.ask("FETCH 1:* (ENVELOPE BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    talk.ask("SEARCH " + "NOT SUBJECT q " * 40 + "ALL")
    talk.ask("SELECT Full")
    talk.ask("UID FETCH " + ",".join(["1:*"] * 8000) + " (UID)")
    talk.ask("SEARCH " + " ".join(["1:*"] * 90))
    assert talk.ask_or_bad("SEARCH " + " ".join(["1:*"] * 200)).startswith(b"t BAD")
    assert time.process_time() - began < 20


def test_a_store_that_is_busy_leaves_the_session_as_it_is(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.ask("SELECT Full")

    def busy(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.mailbox.store.MessageStore.changes", busy)
        assert talk.ask("NOOP") == b"t OK Done\r\n"
        patch.setattr("gateway.mailbox.store.MessageStore.set_flags", busy)
        assert talk.ask("STORE 1 +FLAGS (\\Seen)").startswith(b"t NO [UNAVAILABLE]")
    assert b"\\Seen" in talk.ask("STORE 1 +FLAGS (\\Seen)")


def test_keywords_of_others_are_known_when_a_body_is_seen(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        for _ in range(2):
            await one.run(b"APPEND INBOX " + literal(PLAIN))
        for each in (one, two):
            await each.run("SELECT INBOX")
        await two.run("STORE 1:2 +FLAGS ($NewWord)")
        answer = await one.run("FETCH 2 BODY[]<0.3>")
        assert b"* FLAGS (" in answer
        assert answer.count(b"$NewWord") >= 3
        assert b"* SEARCH 1 2\r\n" in await one.run("SEARCH KEYWORD $NewWord")
        server.store.close()

    asyncio.run(run())


def test_keywords_that_no_message_has_make_room(talk: Talk) -> None:
    talk.ask("SELECT Full")
    for start in range(0, 58, 29):
        talk.ask(f"STORE 1 +FLAGS ({' '.join(f'k{number}' for number in range(start, start + 29))})")
    assert talk.ask("STORE 1 +FLAGS (more)").startswith(b"t NO [CANNOT]")
    assert b"\\*" not in talk.ask("SELECT Full")
    talk.ask(b"APPEND INBOX (other) " + literal(PLAIN))
    talk.ask("SELECT INBOX")
    assert b"Moved" in talk.ask("MOVE 1 Full")  # without its keyword
    talk.ask("SELECT Full")
    talk.ask("STORE 1 FLAGS ()")
    answer = talk.ask("STORE 1 +FLAGS (more)")
    assert answer.endswith(b"t OK Stored\r\n")
    assert b"* 1 FETCH (FLAGS (more))" in answer


def test_condstore_is_told_as_the_standard_wants(talk: Talk) -> None:
    talk.ask("SELECT Full")
    talk.ask("FETCH 1 (MODSEQ)")
    assert b"MODSEQ (" in talk.ask("STORE 1 +FLAGS (\\Seen)")
    assert talk.ask("SELECT Nope").startswith(b"* OK [CLOSED]")
    talk.ask("ENABLE QRESYNC")
    talk.ask("SELECT Full")
    talk.ask("STORE 1 +FLAGS (\\Deleted)")
    assert re.search(rb"^\* VANISHED 1\r\nt OK \[HIGHESTMODSEQ \d+\] Expunged", talk.ask("EXPUNGE"), re.MULTILINE)


def test_utf8_names_are_escaped_and_messages_come_as_literal8(talk: Talk) -> None:
    talk.ask("ENABLE UTF8=ACCEPT")
    assert talk.ask('CREATE "é\\"x\\\\"').startswith(b"t OK")
    assert '"é\\"x\\\\"'.encode() in talk.ask('LIST "" "*"')
    assert talk.ask(b"APPEND INBOX UTF8 (~" + literal(PLAIN) + b")").startswith(b"t OK [APPENDUID")


def test_lsub_shows_levels_above_only_where_it_must(talk: Talk) -> None:
    talk.ask("CREATE Foo/Bar")
    talk.ask("SUBSCRIBE Foo/Bar")
    assert b'* LSUB (\\Noselect) "/" Foo\r\n' in talk.ask('LSUB "" %')
    assert b'"/" Foo\r\n' not in talk.ask('LSUB "" *')
    talk.ask("SUBSCRIBE Foo")
    assert b"CHILDINFO" in talk.ask('LIST (SUBSCRIBED RECURSIVEMATCH) "" %')
    assert talk.ask("SEARCH Return (COUNT) ALL").startswith(b"t BAD No mailbox")
