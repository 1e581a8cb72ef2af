"""client.early_talker in a running gateway: who waits for the greeting, who is caught, and that nothing is lost."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, RawReply, message, stored, temporary_gateway, traced, wait_stored

DELAY_S = 1.2
QUICK_S = 0.9  # well before the delay is over
PROXY, XCLIENT = "127.0.0.40", "127.0.0.41"
JUDGED, NOTED, AT_HELO, OTHER = "127.40.0.1", "127.41.0.1", "127.42.0.1", "127.43.0.1"
CONNECT = """\
stage: connect
rules:
  - reject: early talkers
    when: not client.trusted and client.ip in ["127.40.0.0/16", "198.51.100.0/24", "127.0.0.1"] and client.early_talker
    reply: 554 5.7.1 Speak when you are spoken to
  - note: spoke early
    when: client.ip in ["127.41.0.0/16"] and client.early_talker
    do: {mark: early}
"""
HELO = """\
stage: helo
rules:
  - reject: early talkers, asked late
    when: client.ip in ["127.42.0.0/16"] and client.early_talker
"""
POLICIES = {"10-connect.yaml": CONNECT, "20-helo.yaml": HELO}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings = {
        "checks.early_talker": {"delay": f"{int(DELAY_S * 1000)}ms"},
        "listen": {"proxy_from": [f"{PROXY}/32"], "xclient_from": [f"{XCLIENT}/32"]},
    }
    with temporary_gateway(settings=settings, policies=POLICIES) as running:
        yield running


def connect(gateway: Gateway, source: str, before: bytes = b"") -> RawClient:
    """A client that has not read its greeting."""
    return RawClient(gateway.ports["smtp"], source=source, before=before, greet=False)


def greeting(client: RawClient) -> tuple[RawReply, float]:
    """And how long it took from here."""
    started = time.monotonic()
    answer = client.reply()
    return answer, time.monotonic() - started


def rcpt(client: RawClient) -> RawReply:
    client.ehlo()
    assert client.line("MAIL FROM:<bob@elsewhere.test>").code == 250
    return client.line("RCPT TO:<alice@example.org>")


# --- who waits --------------------------------------------------------------------------------------------------------


def test_a_silent_client_waits_for_its_greeting_and_is_welcome(gateway: Gateway) -> None:
    with connect(gateway, JUDGED) as client:
        answer, seconds = greeting(client)
        assert answer.code == 220
        assert DELAY_S - 0.1 < seconds < DELAY_S + 3
        assert rcpt(client).code == 250


@pytest.mark.parametrize("source", [OTHER, AT_HELO, "127.0.0.1"], ids=["other network", "asked at helo", "trusted"])
def test_nobody_else_waits(gateway: Gateway, source: str) -> None:
    with connect(gateway, source) as client:
        answer, seconds = greeting(client)
        assert answer.code == 220
        assert seconds < QUICK_S
        assert rcpt(client).code == 250


def test_many_wait_at_the_same_time(gateway: Gateway) -> None:
    started = time.monotonic()
    clients = [connect(gateway, f"127.40.1.{number}") for number in range(1, 41)]
    try:
        assert [client.reply().code for client in clients] == [220] * 40
        assert time.monotonic() - started < 3 * DELAY_S
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_users_do_not_wait_on_their_ports(gateway: Gateway, listener: str) -> None:
    started = time.monotonic()
    with RawClient(gateway.ports[listener], source=JUDGED, tls=listener == "submissions") as client:
        assert time.monotonic() - started < QUICK_S
        client.ehlo()
        if listener == "submission":
            client.starttls()
            client.ehlo()
        started = time.monotonic()
        assert client.login().code == 235
        assert rcpt(client).code == 250
        assert time.monotonic() - started < QUICK_S + 1  # a password takes its time


# --- who is caught ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"EHLO client.test\r\n", b"\r\n", b"E", b"\0", b"GET / HTTP/1.0\r\n\r\n"])
def test_who_speaks_first_is_caught_at_once(gateway: Gateway, first: bytes) -> None:
    with connect(gateway, JUDGED) as client:
        client.send(first)
        answer, seconds = greeting(client)
        assert answer.code == 220  # the refusal waits for RCPT
        assert seconds < QUICK_S


def test_the_refusal_of_an_early_talker_is_told_at_rcpt_and_traced(gateway: Gateway) -> None:
    with connect(gateway, JUDGED) as client:
        client.send(b"EHLO client.test\r\nMAIL FROM:<bob@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\nQUIT\r\n")
        *_, refusal, bye = found = client.replies(5)
        assert [answer.code for answer in found] == [220, 250, 250, 554, 221]
        assert refusal.lines[0].startswith("5.7.1 Speak when you are spoken to [")
        assert bye.code == 221
    facts = traced(gateway, refusal)["facts"]
    assert isinstance(facts, dict)
    assert facts["client.early_talker"] is True


def test_a_client_that_speaks_in_the_middle_of_the_wait_is_caught(gateway: Gateway) -> None:
    with connect(gateway, JUDGED) as client:
        assert client.is_silent(DELAY_S / 3)
        client.send(b"EHLO client.test\r\n")
        answer, seconds = greeting(client)
        assert (answer.code, client.reply().code) == (220, 250)
        assert seconds < QUICK_S
        assert client.line("MAIL FROM:<bob@elsewhere.test>").code == 250
        assert client.line("RCPT TO:<alice@example.org>").code == 554


@pytest.mark.parametrize(("early", "code"), [(b"", 250), (b"EHLO client.test\r\n", 554)], ids=["silent", "early"])
def test_a_proxys_header_is_no_word_of_its_client(gateway: Gateway, early: bytes, code: int) -> None:
    header = b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 25\r\n"
    with connect(gateway, PROXY, header + early) as client:
        answer, seconds = greeting(client)
        assert answer.code == 220
        assert (seconds < QUICK_S) is bool(early)
        if early:
            assert client.reply().code == 250
        assert rcpt(client).code == code


def test_xclient_is_greeted_anew_without_a_wait(gateway: Gateway) -> None:
    with connect(gateway, XCLIENT) as client:
        assert client.reply().code == 220
        client.ehlo()
        started = time.monotonic()
        client.send(b"XCLIENT ADDR=198.51.100.8 NAME=told.test\r\nEHLO client.test\r\n")
        assert client.codes(2) == [220, 250]
        assert time.monotonic() - started < QUICK_S
        assert rcpt(client).code == 250


# --- nothing is lost --------------------------------------------------------------------------------------------------


def dialogue(marker: str) -> bytes:
    commands = b"EHLO client.test\r\nMAIL FROM:<bob@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
    return commands + message(marker, b"..stuffed\r\nlast\r\n") + b".\r\nNOOP\r\nQUIT\r\n"


CODES = [220, 250, 250, 250, 354, 250, 250, 221]


@pytest.mark.parametrize("source", [NOTED, OTHER], ids=["waited for", "not waited for"])
@pytest.mark.parametrize("cut", [0, 1, 17, 70, 150, 10_000], ids="{} octets early".format)
def test_a_whole_dialogue_sent_before_the_greeting_is_done_in_order(gateway: Gateway, source: str, cut: int) -> None:
    marker = f"early-{source}-{cut}"
    octets = dialogue(marker)
    with connect(gateway, source) as client:
        client.send(octets[:cut])
        assert client.reply().code == 220
        client.send(octets[cut:])
        assert client.codes(len(CODES) - 1) == CODES[1:]
        assert client.rest() == b""
    assert wait_stored(gateway, marker).endswith(b"\r\n\r\n.stuffed\r\nlast\r\n")
    assert len(stored(gateway, f"Subject: {marker}\r\n")) == 1


def test_more_than_a_socket_holds_may_come_early(gateway: Gateway) -> None:
    with connect(gateway, NOTED) as client:
        client.send(b"NOOP " + b"x" * 1000 + b"\r\n" + (b"NOOP " + b"y" * 400 + b"\r\n") * 1500)
        assert client.codes(1502) == [220] + [250] * 1501


def test_early_starttls_with_octets_behind_it_is_refused(gateway: Gateway) -> None:
    with connect(gateway, NOTED) as client:
        client.send(b"EHLO client.test\r\nSTARTTLS\r\nEHLO injected.test\r\n")
        assert client.codes(2) == [220, 250]
        assert client.reply().code == 421
        assert client.rest() == b""


# --- clients that go away ---------------------------------------------------------------------------------------------


def test_who_says_all_and_shuts_its_side_gets_all_answers(gateway: Gateway) -> None:
    with connect(gateway, NOTED) as client:
        client.send(dialogue("early-half-closed"))
        client.half_close()
        assert client.codes(len(CODES)) == CODES
    wait_stored(gateway, "early-half-closed")


def close(client: RawClient) -> None:
    client.close()


def reset(client: RawClient) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def half_close(client: RawClient) -> None:
    client.half_close()
    assert client.rest().startswith(b"220 ") or client.rest() == b""
    client.close()


@pytest.mark.parametrize("leave", [close, reset, half_close])
def test_who_hangs_up_during_the_wait_leaves_nothing_behind(
    gateway: Gateway, leave: Callable[[RawClient], None]
) -> None:
    before = gateway.log()
    for number in range(1, 6):
        leave(connect(gateway, f"127.40.2.{number}"))
    wait_until(lambda: gateway.metric("smarthost_sessions_open", listener="smtp") == 0, 5.0, "the sessions to end")
    new = gateway.log()[len(before) :]
    assert "check failed" not in new
    assert "Traceback" not in new
    with connect(gateway, OTHER) as client:
        assert client.reply().code == 220


# --- refused at once, and a shutdown ----------------------------------------------------------------------------------


def test_refused_at_once_and_told_of_a_shutdown_in_mid_wait(make_gateway: Callable[..., Gateway]) -> None:
    settings = {"checks.early_talker": {"delay": "20s", "timeout": "25s"}, "policy": {"answer": "early"}}
    gateway = make_gateway(settings=settings, policies=POLICIES).start()
    with connect(gateway, JUDGED) as client:
        client.send(b"EHLO client.test\r\n")
        answer, seconds = greeting(client)
        assert (answer.code, seconds < 5) == (554, True)
        assert client.rest() == b""
    with connect(gateway, JUDGED) as client:
        assert client.is_silent(0.5)
        codes: list[int | None] = []
        stopping = threading.Thread(target=lambda: codes.append(gateway.stop()))
        stopping.start()
        answer, seconds = greeting(client)
        assert (answer.code, seconds < 10) == (421, True)
        assert client.rest() == b""
        stopping.join(20)
        assert codes == [0]
