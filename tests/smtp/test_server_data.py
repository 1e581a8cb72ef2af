"""DATA and BDAT of a running gateway: smuggling, sizes, hostile content, vanishing clients; nothing half is stored."""

import os
from collections.abc import Iterator

import pytest

from tests.support.gateway import STRANGER, Gateway
from tests.support.process import wait_until
from tests.support.raw import (
    RawClient,
    RawReply,
    message,
    queued,
    send_whole,
    spool_files,
    stored,
    temporary_gateway,
    trace_command,
    traced,
    wait_stored,
)

SIZE = 300_000
LINE = 2000
MENDED = "127.0.0.7"  # in repair_bare_lf_from
SMUGGLED = (
    b"MAIL FROM:<ceo@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
    b"From: ceo@example.org\r\nSubject: smuggled-%s\r\n\r\nPay.\r\n.\r\nQUIT\r\n"
)
SEQUENCES = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "crlf-dot-lf": b"\r\n.\n",
    "cr-dot-cr": b"\r.\r",
    "cr-dot-crlf": b"\r.\r\n",
    "crlf-dot-cr": b"\r\n.\r",
    "lf-dot-cr": b"\n.\r",
    "cr-dot-lf": b"\r.\n",
    "crlf-nul-dot-crlf": b"\r\n\0.\r\n",
    "crlf-dot-nul-crlf": b"\r\n.\0\r\n",
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    limits = {"size": SIZE, "line": LINE, "repair_bare_lf_from": [f"{MENDED}/32"], "errors": 50}
    with temporary_gateway(settings={"limits": limits}) as running:
        yield running


def connect(gateway: Gateway, source: str = STRANGER) -> RawClient:
    client = RawClient(gateway.ports["smtp"], source=source)
    client.ehlo()
    return client


def assert_nothing_stored(gateway: Gateway, marker: str) -> None:
    """A later message comes through, the one with the marker did not, and no file of it is left."""
    send_whole(gateway, f"sentinel-behind-{marker.encode().hex()}")
    assert queued(gateway, marker) == 0
    assert stored(gateway, marker) == []
    wait_until(lambda: spool_files(gateway) == [], 5.0, "data/spool/tmp to be empty")


def refuse_content(gateway: Gateway, content: bytes, code: int, status: str) -> RawReply:
    """The content is refused at its end, and the session goes on."""
    with connect(gateway) as client:
        client.begin_data()
        client.send(content + b".\r\n")
        answer = client.reply()
        assert answer.code == code
        assert answer.lines[0].startswith(status)
        assert answer.id
        assert client.line("RCPT TO:<alice@example.org>").code == 503
        client.begin_data()
        client.send(b".\r\n")
        assert client.reply().code in (250, 550)
    return answer


# --- smuggling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_split", [False, True], ids=["at-once", "by-octet"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_smuggled_end_of_data_is_refused_and_nothing_is_stored(gateway: Gateway, name: str, is_split: bool) -> None:
    marker = f"{name}-{is_split}"
    smuggled = SMUGGLED % marker.encode()
    with connect(gateway) as client:
        client.begin_data()
        client.send(message(f"carrier-{marker}", b"body"))
        pieces = [bytes([octet]) for octet in SEQUENCES[name]] if is_split else [SEQUENCES[name]]
        for piece in pieces:
            client.try_send(piece)
        client.try_send(smuggled + b".\r\n")
        answer = client.reply()
        assert answer.code == 550
        assert answer.lines[0].startswith("5.6")
        assert answer.id
        client.try_send(b"QUIT\r\n")
        assert b"354" not in client.rest()
    assert_nothing_stored(gateway, f"carrier-{marker}")
    assert queued(gateway, f"smuggled-{marker}") == 0
    assert stored(gateway, f"smuggled-{marker}") == []


def test_the_refusal_of_a_smuggled_end_is_traced(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.begin_data()
        client.send(message("traced-smuggling", b"body\n.\r\n"))
        answer = client.reply()
        assert answer.code == 550
        assert client.rest() == b""
    assert "sender@elsewhere.test" in trace_command(gateway, answer)


@pytest.mark.parametrize("name", ["lf-dot-lf", "lf-dot-crlf", "crlf-dot-lf"])
def test_bare_line_ends_of_a_listed_network_are_mended(gateway: Gateway, name: str) -> None:
    marker = f"mended-{name}"
    with connect(gateway, MENDED) as client:
        client.begin_data()
        client.send(message(marker, b"first\nsecond\r\nthird").replace(b"elsewhere.test\r\n", b"elsewhere.test\n"))
        client.send(SEQUENCES[name])
        assert client.reply().code == 250
        assert client.line("NOOP").code == 250
    mail = wait_stored(gateway, marker)
    assert mail.endswith(b"\r\n\r\nfirst\r\nsecond\r\nthird\r\n")
    assert mail.count(b"\n") == mail.count(b"\r\n")


def test_a_listed_network_may_end_commands_by_bare_lf(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=MENDED) as client:
        client.send(b"EHLO client.test\nMAIL FROM:<a@elsewhere.test>\nRCPT TO:<alice@example.org>\r\nDATA\n")
        assert client.codes(4) == [250, 250, 250, 354]
        client.send(message("mended-all").replace(b"\r\n", b"\n") + b".\nQUIT\n")
        assert client.codes(2) == [250, 221]
    wait_stored(gateway, "mended-all")


def test_a_final_dot_cut_between_cr_and_lf_gives_one_reply_to_a_listed_network(gateway: Gateway) -> None:
    with connect(gateway, MENDED) as client:
        client.begin_data()
        client.send(message("mended-and-cut") + b".\r")
        answered_early = not client.is_silent(0.2)
        client.send(b"\n")
        answers = client.replies(1)
        answers.append(client.line("VRFY a"))
        assert [answer.code for answer in answers] == [250, 252], f"answered before the LF: {answered_early}"


def test_bare_line_ends_away_from_any_dot_are_refused_at_the_end(gateway: Gateway) -> None:
    for number, body in enumerate((b"one\ntwo\r\n", b"one\rtwo\r\n", b"one\r\r\ntwo\r\n", b"one\n\r\n")):
        answer = refuse_content(gateway, message(f"bare-{number}", body), 550, "5.6.11")
        assert "bare" in answer.text
    assert_nothing_stored(gateway, "bare-")


# --- content ----------------------------------------------------------------------------------------------------------


def test_a_nul_is_refused(gateway: Gateway) -> None:
    refuse_content(gateway, message("with-nul", b"a\0b\r\n"), 550, "5.6.0")
    assert_nothing_stored(gateway, "with-nul")


def test_an_overlong_line_is_refused_and_one_at_the_limit_is_not(gateway: Gateway) -> None:
    refuse_content(gateway, message("line-over", b"x" * (LINE - 1) + b"\r\n"), 550, "5.6.0")
    with connect(gateway) as client:
        client.begin_data()
        client.send(message("line-at-limit", b"x" * (LINE - 2) + b"\r\n") + b".\r\n")
        assert client.reply().code == 250
    wait_stored(gateway, "line-at-limit")
    assert_nothing_stored(gateway, "line-over")


def test_8bit_without_8bitmime_is_accepted_and_stored_octet_for_octet(gateway: Gateway) -> None:
    octets = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    content = message("eight-bit", octets + b"\r\nGr\xfc\xdfe\r\n")
    with connect(gateway) as client:
        client.begin_data()
        client.send(content + b".\r\n")
        assert client.reply().code == 250
    assert wait_stored(gateway, "eight-bit").endswith(b"\r\n" + content)


def test_stuffed_dots_are_taken_off_and_no_others(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.begin_data()
        client.send(message("dots", b"..\r\n...\r\n..x\r\n.y\r\na.\r\n") + b".\r\n")
        assert client.reply().code == 250
    assert wait_stored(gateway, "dots").endswith(b"\r\n\r\n.\r\n..\r\n.x\r\ny\r\na.\r\n")


def test_a_large_message_is_stored_octet_for_octet(gateway: Gateway) -> None:
    content = message("large", b"".join(b"%06d " % number + b"x" * 60 + b"\r\n" for number in range(3500)))
    assert 200_000 < len(content) < SIZE
    with connect(gateway) as client:
        client.begin_data()
        client.send(content + b".\r\n")
        assert client.reply().code == 250
    assert wait_stored(gateway, "large").endswith(b"\r\n" + content)
    wait_until(lambda: spool_files(gateway) == [], 5.0, "data/spool/tmp to be empty")


def test_an_empty_message_is_refused_by_the_policy_not_by_a_fault(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.begin_data()
        client.send(b".\r\n")
        answer = client.reply()
        assert answer.code == 550
        assert "header" in answer.text
        assert client.line("NOOP").code == 250


# --- size -------------------------------------------------------------------------------------------------------------


def test_a_declared_size_over_the_limit_is_refused_at_mail(gateway: Gateway) -> None:
    with connect(gateway) as client:
        answer = client.line(f"MAIL FROM:<a@elsewhere.test> SIZE={SIZE + 1}")
        assert answer.code == 552
        assert answer.lines[0].startswith("5.3.4")
        assert client.line(f"MAIL FROM:<a@elsewhere.test> SIZE={'9' * 20}").code == 552
        assert client.line(f"MAIL FROM:<a@elsewhere.test> SIZE={SIZE}").code == 250
    assert traced(gateway, answer)


def test_a_real_size_over_the_limit_is_refused_at_the_dot(gateway: Gateway) -> None:
    refuse_content(gateway, message("oversize", b"x" * 998 + b"\r\n" * 1) + (b"y" * 998 + b"\r\n") * 320, 552, "5.3.4")
    assert_nothing_stored(gateway, "oversize")


def test_endless_data_is_cut_off(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.begin_data()
        block = (b"y" * 998 + b"\r\n") * 100
        for _ in range(12):
            client.try_send(block)
        answer = client.reply()
        assert answer.code == 552
        assert client.rest() == b""
    assert traced(gateway, answer)


def test_a_message_of_exactly_the_limit_is_accepted(gateway: Gateway) -> None:
    head = message("exact-size", b"")
    body = (b"z" * 998 + b"\r\n") * 299
    body += b"w" * (SIZE - len(head) - len(body) - 2) + b"\r\n"
    assert len(head + body) == SIZE
    with connect(gateway) as client:
        client.begin_data()
        client.send(head + body + b".\r\n")
        assert client.reply().code == 250
    wait_stored(gateway, "exact-size")


# --- clients that vanish ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [100, 150_000], ids=["in-memory", "in-a-file"])
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_a_client_that_vanishes_in_the_message_leaves_nothing(gateway: Gateway, verb: str, octets: int) -> None:
    marker = f"vanished-{verb}-{octets}"
    content = message(marker, (b"v" * 998 + b"\r\n") * (octets // 1000))
    with connect(gateway) as client:
        if verb == "DATA":
            client.begin_data()
            client.send(content)
        else:
            client.envelope()
            client.send(b"BDAT 200000\r\n" + content)
        if octets > 65536:
            wait_until(lambda: spool_files(gateway), 5.0, "a file in data/spool/tmp")
    assert_nothing_stored(gateway, marker)


def test_a_client_that_vanishes_between_chunks_leaves_nothing(gateway: Gateway) -> None:
    content = message("vanished-between", b"v\r\n" * 30_000)
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d\r\n" % len(content) + content)
        assert client.reply().code == 250
        assert len(spool_files(gateway)) >= 1
    assert_nothing_stored(gateway, "vanished-between")


@pytest.mark.parametrize("end", [b"\r\n.", b"\r\n.\r", b"\r\n", b"\r"])
def test_half_an_end_of_data_with_eof_is_no_end(gateway: Gateway, end: bytes) -> None:
    marker = f"half-end-{end.hex()}"
    with connect(gateway) as client:
        client.begin_data()
        client.send(message(marker, b"body") + end)
        client.half_close()
        assert b"250" not in client.rest()
    assert_nothing_stored(gateway, marker)


# --- BDAT -------------------------------------------------------------------------------------------------------------


def test_chunks_make_one_message(gateway: Gateway) -> None:
    content = message("chunks", b"one\r\n.\r\n..two\r\nthree\r\n")
    with connect(gateway) as client:
        client.envelope()
        for start in range(0, len(content), 7):
            chunk = content[start : start + 7]
            client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
            assert client.reply().code == 250
        assert client.line("BDAT 0 LAST").code == 250
        assert client.line("DATA").code == 503
    assert wait_stored(gateway, "chunks").endswith(b"\r\n" + content)


def test_pipelined_chunks_of_a_whole_session_are_answered_in_order(gateway: Gateway) -> None:
    content = message("pipelined-chunks")
    with connect(gateway) as client:
        client.send(
            b"MAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\n"
            + b"BDAT 10\r\n%sBDAT %d last\r\n%s" % (content[:10], len(content) - 10, content[10:])
            + b"NOOP\r\nQUIT\r\n"
        )
        assert client.codes(6) == [250, 250, 250, 250, 250, 221]
    assert wait_stored(gateway, "pipelined-chunks").endswith(content)


def test_a_message_by_chunks_without_its_last_line_end_is_stored_with_one(gateway: Gateway) -> None:
    content = message("no-last-crlf", b"no end")
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        assert client.reply().code == 250
    assert wait_stored(gateway, "no-last-crlf").endswith(b"no end\r\n")


@pytest.mark.parametrize(
    "argument", ["", "x", "-1", "1.5", "0x10", "10 FIRST", "10 LAST LAST", "1" * 21, "+5", "\u00b2", "\u0663"]
)
def test_a_malformed_bdat_is_refused_and_ends_the_session(gateway: Gateway, argument: str) -> None:
    with connect(gateway) as client:
        client.envelope()
        client.send(f"BDAT {argument}\r\nNOOP\r\n".encode())
        answer = client.reply()
        assert answer.code == 501
        assert answer.id
        assert client.rest() == b""


def test_octets_beyond_the_declared_size_are_commands(gateway: Gateway) -> None:
    content = message("too-few-declared")
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d LAST\r\n" % len(content) + content + b"surplus\r\n")
        assert client.codes(2) == [250, 500]
        assert client.line("NOOP").code == 250
    assert not wait_stored(gateway, "too-few-declared").endswith(b"surplus\r\n")


def test_a_declared_size_above_what_is_sent_waits_for_the_rest(gateway: Gateway) -> None:
    content = message("too-many-declared")
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d LAST\r\n" % (len(content) + 6) + content)
        assert client.is_silent(0.1)
        client.send(b"NOOP\r\nNOOP\r\n")
        assert client.codes(2) == [250, 250]
    assert wait_stored(gateway, "too-many-declared").endswith(b"A line.\r\nNOOP\r\n")


def test_within_chunks_only_a_few_commands_are_allowed(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT 5\r\nabcde")
        assert client.reply().code == 250
        for command in ("DATA", "MAIL FROM:<a@b.test>", "RCPT TO:<bob@example.org>", "STARTTLS", "VRFY a"):
            answer = client.line(command)
            assert answer.code == 503
            assert answer.id
        assert client.line("NOOP").code == 250


@pytest.mark.parametrize("command", ["RSET", "EHLO again.test"])
def test_a_reset_within_chunks_drops_them(gateway: Gateway, command: str) -> None:
    marker = f"dropped-by-{command[:4]}"
    with connect(gateway) as client:
        client.envelope()
        dropped = message(marker)
        client.send(b"BDAT %d\r\n" % len(dropped) + dropped)
        assert client.reply().code == 250
        assert client.line(command).code == 250
        assert client.line("BDAT 0 LAST").code == 503
        client.begin_data()
        client.send(message(f"behind-{command[:4]}") + b".\r\n")
        assert client.reply().code == 250
    assert marker.encode() not in wait_stored(gateway, f"behind-{command[:4]}")
    assert_nothing_stored(gateway, marker)


def test_an_empty_message_by_bdat_is_answered(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.envelope()
        answer = client.line("BDAT 0 LAST")
        assert answer.code == 550
        assert "header" in answer.text
        client.envelope()
        assert client.line("BDAT 0").code == 250


def test_bdat_outside_of_a_transaction_is_refused_and_its_octets_are_no_commands(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.send(b"BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n")
        assert client.codes(2) == [503, 250]
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        client.send(b"BDAT 6 LAST\r\nQUIT\r\nVRFY a\r\n")
        assert client.codes(2) == [554, 252]


def test_oversize_chunks_are_refused_and_the_session_stays_in_step(gateway: Gateway) -> None:
    chunk = (b"c" * 998 + b"\r\n") * 200
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert client.reply().code == 250
        client.send(b"BDAT %d LAST\r\n" % len(chunk) + chunk)
        answer = client.reply()
        assert answer.code == 552
        assert client.line("NOOP").code == 250
        client.begin_data()
    wait_until(lambda: spool_files(gateway) == [], 5.0, "data/spool/tmp to be empty")
    assert traced(gateway, answer)


def test_a_chunk_far_above_the_limit_is_not_read(gateway: Gateway) -> None:
    with connect(gateway) as client:
        client.envelope()
        answer = client.line(f"BDAT {10**12} LAST")
        assert answer.code == 552
        assert client.rest() == b""


def test_a_chunk_far_above_the_limit_ends_the_message_that_began_before_it(gateway: Gateway) -> None:
    content = message("began-before-the-huge-chunk")
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d\r\n" % len(content) + content)
        assert client.reply().code == 250
        answer = client.line(f"BDAT {10**12} LAST")
        assert answer.code == 552
        said_behind = client.rest()
    assert_nothing_stored(gateway, "began-before-the-huge-chunk")
    assert said_behind == b""


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"x" * LINE + b"\r\n"])
def test_chunks_obey_the_same_rules_of_content(gateway: Gateway, body: bytes) -> None:
    marker = f"bad-chunk-{body[1:3].hex()}"
    content = message(marker, body)
    with connect(gateway) as client:
        client.envelope()
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        answer = client.reply()
        assert answer.code == 550
        assert answer.lines[0].startswith("5.6")
        assert client.line("NOOP").code == 250
    assert_nothing_stored(gateway, marker)


# --- faults of ours ---------------------------------------------------------------------------------------------------


def test_a_spool_that_cannot_be_written_gives_452_without_any_detail(gateway: Gateway) -> None:
    folder = gateway.data / "spool" / "tmp"
    wait_until(lambda: spool_files(gateway) == [], 5.0, "data/spool/tmp to be empty")
    moved = folder.with_name("tmp-away")
    os.rename(folder, moved)
    try:
        with connect(gateway) as client:
            client.begin_data()
            client.send(message("unwritable", b"u\r\n" * 50_000) + b".\r\n")
            answer = client.reply()
            assert answer.code == 452
            assert answer.lines[0].startswith("4.3.1 Not enough space")
            assert "spool" not in answer.text
            assert "Errno" not in answer.text
            assert client.line("NOOP").code == 250
    finally:
        os.rename(moved, folder)
    assert traced(gateway, answer)
