"""The command dialogue of a running gateway: grammar, order, pipelining, hostile lines (DEPENDENCIES.md section 1)."""

import pytest

from tests.support.gateway import STRANGER, Gateway
from tests.support.raw import RawClient, message, send_whole, stored, trace_command, traced, wait_stored

UNKNOWN_MAILBOX = "carol@example.org"


def connect(gateway: Gateway, source: str = STRANGER) -> RawClient:
    client = RawClient(gateway.ports["smtp"], source=source)
    client.ehlo()
    return client


def test_greeting_names_the_host_and_esmtp(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        assert client.greeting.code == 220
        assert client.greeting.text.startswith("gateway.test ESMTP")


def test_ehlo_offers_exactly_what_is_built(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        offered = client.extensions()
        assert offered.pop("SIZE") == str(50 * 1024 * 1024)
        assert set(offered) == {
            "PIPELINING", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN",
        }  # fmt: skip


def test_helo_offers_nothing_and_takes_no_parameters(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        assert client.line("HELO client.test").lines == ("gateway.test",)
        assert client.line("MAIL FROM:<a@elsewhere.test> SIZE=10").code == 501
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250


def test_null_sender_is_accepted_and_stored_as_null(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.begin_data(sender="")
        client.send(message("null-sender-1") + b".\r\n")
        assert client.reply().code == 250
    assert wait_stored(shared_gateway, "null-sender-1").startswith(b"Return-Path: <>\r\n")


@pytest.mark.parametrize(
    "path",
    [
        "<a@b.test",
        "a@b.test",
        "<a @b.test>",
        "<a@b .test>",
        "<a(comment)@b.test>",
        "<(comment)a@b.test>",
        "<a@b.test>junk",
        "<a@@b.test>",
        "<a..b@c.test>",
        "<.a@b.test>",
        "<a@-b.test>",
        "<a@b..test>",
        "<@b.test>",
        "<a@>",
        "<a>",
        "Name <a@b.test>",
        "<=?utf-8?q?x?=@>",
        "<a@[300.1.1.1]>",
        f"<{'a' * 250}@b.test>",
        f"<a@{'b' * 64}.test>",
        '<"a@b.test>',
    ],
)
def test_a_breach_of_the_address_grammar_is_refused_by_mail_and_rcpt(shared_gateway: Gateway, path: str) -> None:
    with connect(shared_gateway) as client:
        answer = client.line(f"MAIL FROM:{path}")
        assert answer.code in (501, 553)
        assert answer.id
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        assert client.line(f"RCPT TO:{path}").code in (501, 553)
        assert client.line("DATA").code == 554


def test_an_encoded_word_is_no_other_address(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        answer = client.line("RCPT TO:<=?utf-8?q?alice?=@example.org>")
        assert answer.code == 550
        assert "=?utf-8?q?alice?=" in answer.text


@pytest.mark.parametrize("octet", [b"\0", b"\r", b"\t", b"\x1b", b"\x7f"])
def test_a_control_character_in_a_command_is_refused(shared_gateway: Gateway, octet: bytes) -> None:
    with connect(shared_gateway) as client:
        answer = client.line(b"MAIL FROM:<a" + octet + b"b@elsewhere.test>")
        assert answer.code == 500
        assert answer.id
        assert client.line("NOOP").code == 250


def test_a_bare_lf_in_a_command_is_refused_and_ends_the_session(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.send(b"NOOP\nMAIL FROM:<a@elsewhere.test>\r\n")
        answer = client.reply()
        assert answer.code == 500
        assert answer.lines[0].startswith("5.5.2")
        assert client.rest() == b""
    assert traced(shared_gateway, answer)


def test_parameter_values_keep_their_case_and_known_ones_are_taken(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert (
            client.line("MAIL FROM:<a@elsewhere.test> RET=HDRS ENVID=QQ+2B314159 BODY=8BITMIME SIZE=100 AUTH=<>").code
            == 250
        )
        answer = client.line("RCPT TO:<alice@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Alice+2Bx@Example.ORG")
        assert answer.code == 250


@pytest.mark.parametrize("word", ["mail from:<a@elsewhere.test>", "MaIl FrOm:<a@elsewhere.test> size=5 body=7bit"])
def test_verbs_and_keywords_are_case_insensitive(shared_gateway: Gateway, word: str) -> None:
    with connect(shared_gateway) as client:
        assert client.line(word).code == 250


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ("FOO=bar", 555),
        ("MT-PRIORITY=3", 555),
        ("NOTIFY=NEVER", 555),
        ("SIZE=abc", 501),
        ("SIZE=-1", 501),
        ("SIZE", 501),
        ("SIZE=1 SIZE=2", 501),
        ("SIZE=" + "9" * 21, 501),
        ("BODY=BINARYMIME", 501),
        ("BODY=9BIT", 501),
        ("RET=ALL", 501),
        ("ENVID=", 501),
        ("ENVID=a+0Ab", 501),
        ("SMTPUTF8=yes", 501),
        ("=x", 501),
        ("SIZE=²", 501),
    ],
)
def test_a_bad_mail_parameter_is_refused(shared_gateway: Gateway, parameter: str, code: int) -> None:
    with connect(shared_gateway) as client:
        assert client.line(f"MAIL FROM:<a@elsewhere.test> {parameter}").code == code
        assert client.line("RCPT TO:<alice@example.org>").code == 503


@pytest.mark.parametrize(
    ("parameter", "code"),
    [
        ("FOO", 555),
        ("SIZE=1", 555),
        ("NOTIFY=NEVER,DELAY", 501),
        ("NOTIFY=", 501),
        ("NOTIFY=MAYBE", 501),
        ("ORCPT=alice", 501),
        ("ORCPT=rfc822;a+zzb", 501),
    ],
)
def test_a_bad_rcpt_parameter_is_refused(shared_gateway: Gateway, parameter: str, code: int) -> None:
    with connect(shared_gateway) as client:
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        assert client.line(f"RCPT TO:<alice@example.org> {parameter}").code == code
        assert client.line("DATA").code == 554


def test_the_bare_postmaster_is_accepted(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.envelope("postmaster")
        assert client.line("RCPT TO:<PostMaster>").code == 250


def test_a_source_route_is_ignored(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("MAIL FROM:<@x.test,@y.test:a@elsewhere.test>").code == 250
        assert client.line("RCPT TO:<@x.test:alice@example.org>").code == 250


def test_utf8_addresses_need_smtputf8(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        answer = client.line("MAIL FROM:<jürgen@elsewhere.test>")
        assert answer.code == 553
        assert answer.lines[0].startswith("5.6.7")
        assert client.line(b"MAIL FROM:<j\xffrgen@elsewhere.test> SMTPUTF8").code == 553
        assert client.line("MAIL FROM:<jürgen@elsewhere.test> SMTPUTF8").code == 250
        assert client.line("RCPT TO:<zoë@example.org>").code == 550
        assert client.line("RCPT TO:<alice@example.org>").code == 250
        assert client.line("DATA").code == 354
        client.send(message("utf8-sender-1") + b".\r\n")
        assert client.reply().code == 250
    assert "jürgen@elsewhere.test".encode() in wait_stored(shared_gateway, "utf8-sender-1")


def test_commands_out_of_order_are_refused(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 503
        client.ehlo()
        assert client.line("RCPT TO:<alice@example.org>").code == 503
        assert client.line("DATA").code == 503
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        assert client.line("MAIL FROM:<b@elsewhere.test>").code == 503
        assert client.line("DATA").code == 554
        assert client.line("RCPT TO:<alice@example.org>").code == 250
        assert client.line("DATA now").code == 501


@pytest.mark.parametrize("command", ["RSET", "EHLO again.test", "HELO again.test"])
def test_rset_and_a_new_greeting_end_the_transaction(shared_gateway: Gateway, command: str) -> None:
    with connect(shared_gateway) as client:
        client.envelope()
        assert client.line(command).code == 250
        assert client.line("DATA").code == 503


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("NOOP", 250),
        ("NOOP with words", 250),
        ("RSET", 250),
        ("RSET now", 501),
        ("VRFY alice", 252),
        ("VRFY", 501),
        ("EXPN staff", 502),
        ("HELP", 214),
        ("QUIT now", 501),
        ("EHLO", 501),
        ("EHLO two words", 501),
        ("HELO", 501),
        ("XCLIENT ADDR=192.0.2.1", 502),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2", 500),
        ("", 500),
        (" NOOP", 500),
        ("TURN", 500),
        ("__INIT__", 500),
        ("smtp_MAIL", 500),
        ("STARTTLS now", 501),
    ],
)
def test_each_command_has_its_reply(shared_gateway: Gateway, command: str, code: int) -> None:
    with connect(shared_gateway) as client:
        answer = client.line(command)
        assert answer.code == code
        assert code < 400 or answer.id
        assert client.line("NOOP").code == 250


def test_quit_is_answered_and_closes(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("QUIT").code == 221
        assert client.rest() == b""


@pytest.mark.parametrize("verb", ["GET / HTTP/1.1", "POST /x HTTP/1.1", "CONNECT example.org:443 HTTP/1.1"])
def test_an_http_request_is_cut_off_before_its_body_is_read(shared_gateway: Gateway, verb: str) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        client.send(
            f"{verb}\r\nHost: x\r\n\r\nEHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.org>\r\n".encode()
        )
        answer = client.reply()
        assert answer.code == 421
        assert client.rest() == b""
    assert traced(shared_gateway, answer)


def test_a_tls_hello_on_the_plain_port_is_no_command(shared_gateway: Gateway) -> None:
    hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + b"\x55" * 32 + b"\x00\x00\x02\x13\x01\x01\x00\x00\x00"
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        answer = client.line(hello)
        assert answer.code == 500
        assert client.line("EHLO client.test").code == 250


def test_garbage_is_answered_and_the_session_goes_on(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line(bytes(range(0x80, 0x100))).code == 500
        assert client.line(b"\xff\xfb\x01").code == 500
        assert client.line("NOOP").code == 250


def test_an_overlong_command_is_refused_and_the_session_goes_on(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("NOOP " + "x" * (2048 - 7)).code == 250
        answer = client.line("NOOP " + "x" * (2048 - 6))
        assert answer.code == 500
        assert answer.id
        assert client.line("NOOP").code == 250


def test_a_command_without_end_is_cut_off(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.try_send(b"x" * 40_000)
        assert client.reply().code == 500
        assert client.rest() == b""


def test_fifty_ehlos_change_no_limit_for_anybody(shared_gateway: Gateway) -> None:
    long_mail = f"MAIL FROM:<a@elsewhere.test> ENVID={'x' * 2050}"
    with connect(shared_gateway) as client:
        for _ in range(50):
            client.ehlo()
        assert client.line(long_mail).lines[0].startswith("5.5.2 Command line too long")
        with connect(shared_gateway) as other:
            assert other.line(long_mail).lines[0].startswith("5.5.2 Command line too long")


def test_a_pipelined_group_is_answered_in_order(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.send(
            b"MAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<nobody@example.org>\r\nRCPT TO:<alice@example.org>\r\n"
            b"FOO\r\nNOOP\r\nRCPT TO:<x@remote.test>\r\nDATA\r\n"
        )
        assert client.codes(7) == [250, 550, 250, 500, 250, 554, 354]
        client.send(message("pipelined-group-1") + b".\r\nNOOP\r\nVRFY a\r\nQUIT\r\n")
        assert client.codes(4) == [250, 250, 252, 221]
        assert client.rest() == b""
    wait_stored(shared_gateway, "pipelined-group-1")


def test_a_pipelined_group_cut_octet_by_octet_is_answered_the_same(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        for octet in b"MAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n":
            client.send(bytes([octet]))
        assert client.codes(3) == [250, 250, 354]
        for octet in message("octet-by-octet-1") + b".\r\n":
            client.send(bytes([octet]))
        assert client.reply().code == 250
    wait_stored(shared_gateway, "octet-by-octet-1")


def test_what_is_sent_at_once_with_eof_behind_is_processed(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER, greet=False) as client:
        client.send(
            b"EHLO client.test\r\nMAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
            + message("all-at-once-1")
            + b".\r\nQUIT\r\n"
        )
        client.half_close()
        assert client.codes(7) == [220, 250, 250, 250, 354, 250, 221]
        assert client.rest() == b""
    wait_stored(shared_gateway, "all-at-once-1")


@pytest.mark.parametrize("how", ["half-closes", "closes"])
def test_a_client_that_leaves_behind_the_dot_has_its_message_stored_once(shared_gateway: Gateway, how: str) -> None:
    marker = f"left-behind-the-dot-{how}"
    with connect(shared_gateway) as client:
        client.begin_data()
        client.send(message(marker) + b".\r\n")
        if how == "half-closes":
            client.half_close()
            assert client.reply().code == 250
    wait_stored(shared_gateway, marker)
    send_whole(shared_gateway, f"sentinel-{how}")
    assert len(stored(shared_gateway, marker)) == 1


def test_an_unfinished_command_at_eof_is_not_run(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.send(b"NOOP")
        client.half_close()
        assert client.rest() == b""


def test_a_stranger_may_not_relay_and_the_refusal_is_traced(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        answer = client.line("RCPT TO:<x@remote.test>")
        assert answer.code == 554
        for path in ("<x%remote.test@example.org>", "<@example.org:x@remote.test>", '<"x@remote.test"@example.org>'):
            assert client.line(f"RCPT TO:{path}").code in (550, 554)
        assert client.line("DATA").code == 554
    assert "x@remote.test" in trace_command(shared_gateway, answer)


def test_mail_to_an_unknown_mailbox_is_refused(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        assert client.line(f"RCPT TO:<{UNKNOWN_MAILBOX}>").code == 550
