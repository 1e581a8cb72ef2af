"""The client side: replies from octets in any pieces, extensions, commands, dot-stuffing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.reply import Reply
from gateway.smtp.client import (
    MAX_REPLY_LINES,
    NO_EXTENSIONS,
    Extensions,
    Outgoing,
    ReplyError,
    ReplyReader,
    auth_login,
    auth_plain,
    mail_command,
    needs_7bit,
    needs_smtputf8,
    parse_extensions,
    rcpt_command,
    stuff_dots,
    unfit,
)
from gateway.smtp.data import DataDecoder

OUTGOING = Outgoing(
    path_or_null("a@b.example"), ((parse_mailbox("x@y.example"), "", frozenset()),), 1000, "", False, "", "", False
)
ALL = Extensions(dict.fromkeys(("SIZE", "8BITMIME", "SMTPUTF8", "DSN", "PIPELINING"), ""))


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    out, at, turn = [], 0, 0
    while at < len(data):
        out.append(data[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return out


def read(data: bytes, sizes: list[int]) -> list[Reply]:
    reader = ReplyReader()
    return [reply for piece in pieces(data, sizes) for reply in reader.feed(piece)]


@pytest.mark.parametrize(
    ("octets", "replies"),
    [
        (b"220 hi\r\n", [Reply(220, "", ("hi",))]),
        (b"250\r\n", [Reply(250, "", ("",))]),
        (b"250 2.1.0 Ok\r\n", [Reply(250, "2.1.0", ("Ok",))]),
        (b"250-a\r\n250-SIZE 10\r\n250 DSN\r\n", [Reply(250, "", ("a", "SIZE 10", "DSN"))]),
        (b"250 \r\n", [Reply(250, "", ("",))]),
        (b"550-5.7.1 one\r\n550 5.7.1 two\r\n", [Reply(550, "5.7.1", ("one", "two"))]),
        (b"550 2.0.0 odd\r\n", [Reply(550, "", ("2.0.0 odd",))]),
        (b"220 a\n250 b\n", [Reply(220, "", ("a",)), Reply(250, "", ("b",))]),
        (b"250 \xff\0\t\r\n", [Reply(250, "", ("???",))]),
        (b"250 5.", []),
    ],
)
@pytest.mark.parametrize("sizes", [[1], [2, 3], [1000]])
def test_replies_are_read_from_any_pieces(octets: bytes, replies: list[Reply], sizes: list[int]) -> None:
    assert read(octets, sizes) == replies


# A text that begins as an enhanced status does is read as one, and a status is of the whole reply.
plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).filter(
    lambda text: not text.startswith(("2", "4", "5"))
)
lines = st.tuples(st.integers(200, 599), st.lists(plain | st.just(""), min_size=1, max_size=4))


@given(st.lists(lines, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_what_is_rendered_is_read_back_whatever_the_pieces(
    wanted: list[tuple[int, list[str]]], sizes: list[int]
) -> None:
    replies = [Reply(code, "", tuple(texts)) for code, texts in wanted]
    octets = b"".join(reply.render() for reply in replies)
    found = read(octets, sizes)
    assert found == read(octets, [len(octets) + 1])
    assert [reply.code for reply in found] == [reply.code for reply in replies]
    assert b"".join(reply.render() for reply in found).replace(b" ", b"") == octets.replace(b" ", b"")


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n",
        b"99 x\r\n",
        b"600 x\r\n",
        b"\r\n",
        b"100 x\r\n",
        b"25 0\r\n",
        b"2\xb20 x\r\n",
        b"250-a\r\n550 b\r\n",
    ],
)
@pytest.mark.parametrize("sizes", [[1], [1000]])
def test_what_is_no_reply_is_an_error(octets: bytes, sizes: list[int]) -> None:
    with pytest.raises(ReplyError):
        read(octets, sizes)


@pytest.mark.parametrize("sizes", [[1], [100_000]])
@pytest.mark.parametrize("octets", [b"250 " + b"x" * 5000 + b"\r\n", b"250-x\r\n" * (MAX_REPLY_LINES + 1)])
def test_a_reply_without_end_is_an_error_in_any_pieces(octets: bytes, sizes: list[int]) -> None:
    with pytest.raises(ReplyError):
        read(octets, sizes)


def test_what_is_left_over_shows() -> None:
    reader = ReplyReader()
    assert reader.is_clean
    reader.feed(b"220 ready\r\n")
    assert reader.is_clean
    reader.feed(b"2")
    assert not reader.is_clean
    reader.feed(b"50-x\r\n")
    assert not reader.is_clean


def test_extensions_of_new_and_old_servers() -> None:
    found = parse_extensions(
        Reply(250, "", ("mx greets", "size 1000", "AUTH LOGIN", "AUTH=PLAIN", "Pipelining", "X-Y a=b"))
    )
    assert found.size_limit == 1000
    assert found.auth_mechanisms == {"LOGIN", "PLAIN"}
    assert found.has("PIPELINING")
    assert not found.has("MX")
    assert not found.has("DSN")
    assert parse_extensions(Reply(250, "", ("mx", "SIZE"))).size_limit == 0
    assert NO_EXTENSIONS.auth_mechanisms == frozenset()


UTF8 = replace(OUTGOING, reverse_path=path_or_null("ü@b.example"), smtputf8=True, has_8bit=True, body="8BITMIME")


@pytest.mark.parametrize(
    ("outgoing", "extensions", "command"),
    [
        (OUTGOING, NO_EXTENSIONS, "MAIL FROM:<a@b.example>"),
        (OUTGOING, ALL, "MAIL FROM:<a@b.example> SIZE=1000"),
        (replace(OUTGOING, reverse_path=path_or_null("")), NO_EXTENSIONS, "MAIL FROM:<>"),
        (UTF8, ALL, "MAIL FROM:<ü@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8"),
        (replace(OUTGOING, body="8BITMIME"), ALL, "MAIL FROM:<a@b.example> SIZE=1000"),
        (replace(OUTGOING, ret="HDRS", envid="a+b"), ALL, "MAIL FROM:<a@b.example> SIZE=1000 RET=HDRS ENVID=a+2Bb"),
        (replace(OUTGOING, ret="HDRS", envid="a+b"), NO_EXTENSIONS, "MAIL FROM:<a@b.example>"),
        (replace(OUTGOING, smtputf8=True), ALL, "MAIL FROM:<a@b.example> SIZE=1000"),
    ],
)
def test_mail_commands(outgoing: Outgoing, extensions: Extensions, command: str) -> None:
    assert mail_command(outgoing, extensions) == command.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("address", "orcpt", "notify", "extensions", "command"),
    [
        (
            "x@y.example",
            "rfc822;z+1@y.example",
            {"DELAY", "FAILURE"},
            ALL,
            "RCPT TO:<x@y.example> NOTIFY=DELAY,FAILURE ORCPT=rfc822;z+2B1@y.example",
        ),
        ("x@y.example", "rfc822;z@y.example", {"NEVER"}, NO_EXTENSIONS, "RCPT TO:<x@y.example>"),
        ('"a b"@y.example', "", set(), ALL, 'RCPT TO:<"a b"@y.example>'),
    ],
)
def test_rcpt_commands(address: str, orcpt: str, notify: set[str], extensions: Extensions, command: str) -> None:
    assert rcpt_command(parse_mailbox(address), orcpt, frozenset(notify), extensions) == command.encode() + b"\r\n"


def test_who_cannot_take_the_message_is_told_before_mail() -> None:
    assert unfit(OUTGOING, Extensions({"SIZE": "1000"})) is None
    assert unfit(OUTGOING, Extensions({"SIZE": "0"})) is None
    too_large = unfit(OUTGOING, Extensions({"SIZE": "999"}))
    assert too_large is not None
    assert (too_large.code, too_large.status) == (552, "5.3.4")
    no_utf8 = unfit(UTF8, NO_EXTENSIONS)
    assert no_utf8 is not None
    assert (no_utf8.code, no_utf8.status) == (550, "5.6.7")
    assert not needs_smtputf8(replace(UTF8, smtputf8=False))
    assert needs_7bit(replace(OUTGOING, body="8BITMIME", has_8bit=True), NO_EXTENSIONS)
    assert not needs_7bit(replace(OUTGOING, body="8BITMIME", has_8bit=True), ALL)
    assert not needs_7bit(replace(OUTGOING, body="8BITMIME"), NO_EXTENSIONS)


octets = st.lists(st.sampled_from([b".", b"\r\n", b"\r\n.", b"a", b"\r", b"\n", b"\xff"]), max_size=30).map(b"".join)
cuts = st.lists(st.integers(1, 5), min_size=1, max_size=8)


@given(octets, cuts, cuts)
def test_stuffed_dots_are_undone_by_the_decoder_for_any_pieces(
    data: bytes, sizes: list[int], others: list[int]
) -> None:
    message = data if data.endswith(b"\r\n") or not data else data + b"\r\n"
    stream = b"".join(stuff_dots([b"", *pieces(message, sizes), b""]))
    assert stream == b"".join(stuff_dots([message]))
    decoder, found = DataDecoder(), b""
    for piece in pieces(stream + b"QUIT", others):
        found += decoder.feed(piece)
        if decoder.done:
            break
    assert decoder.done
    assert found == message


def test_a_message_without_a_last_line_end_gets_one() -> None:
    assert b"".join(stuff_dots([b"a"])) == b"a\r\n.\r\n"
    assert b"".join(stuff_dots([b".a\r", b"\n", b".", b"\r\n"])) == b"..a\r\n..\r\n.\r\n"
    assert b"".join(stuff_dots([])) == b".\r\n"


def test_sign_in_commands() -> None:
    assert auth_plain("u", "p") == b"AUTH PLAIN AHUAcA==\r\n"
    assert auth_login("u", "p") == (b"AUTH LOGIN\r\n", b"dQ==\r\n", b"cA==\r\n")
