"""STARTTLS, implicit TLS and AUTH of a running gateway, and what a fault of ours shows to a peer."""

import socket
import ssl
from base64 import b64encode
from collections.abc import Callable

import pytest

from gateway.storage.sqlite import connect as open_database
from tests.support.gateway import PASSWORD, STRANGER, Gateway
from tests.support.raw import RawClient, message, plain, stored, traced, wait_stored

ALICE = "alice@example.org"


def connect(gateway: Gateway, listener: str = "smtp", source: str = STRANGER) -> RawClient:
    """A client in TLS that has said EHLO."""
    client = RawClient(gateway.ports[listener], source=source, tls=listener == "submissions")
    try:
        client.ehlo()
        if listener != "submissions":
            client.starttls()
            client.ehlo()
    except BaseException:
        client.close()
        raise
    return client


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_starttls_changes_the_offer(shared_gateway: Gateway, listener: str) -> None:
    with RawClient(shared_gateway.ports[listener], source=STRANGER) as client:
        before = client.extensions()
        assert "STARTTLS" in before
        assert "AUTH" not in before
        client.starttls()
        after = client.extensions()
        assert "STARTTLS" not in after
        assert after["AUTH"].split() == ["PLAIN", "LOGIN"]
        assert client.line("STARTTLS").code == 503


def test_the_implicit_tls_port_offers_auth_and_takes_it(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["submissions"], source=STRANGER, tls=True) as client:
        offered = client.extensions()
        assert offered["AUTH"].split() == ["PLAIN", "LOGIN"]
        assert "STARTTLS" not in offered
        assert client.login().code == 235
        assert "AUTH" not in client.extensions()
        client.begin_data(sender=ALICE)
        client.send(message("implicit-tls-1") + b".\r\n")
        assert client.reply().code == 250
    assert b"ESMTPSA" in wait_stored(shared_gateway, "implicit-tls-1")


def test_what_was_said_before_starttls_is_forgotten(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.envelope()
        client.starttls()
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 503
        client.ehlo()
        assert client.line("RCPT TO:<alice@example.org>").code == 503


@pytest.mark.parametrize(
    "injected", [b"NOOP\r\n", b"EHLO x.test\r\nMAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<alice@example.org>\r\n", b"x"]
)
def test_commands_behind_starttls_in_the_same_packet_are_not_run(shared_gateway: Gateway, injected: bytes) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.send(b"STARTTLS\r\n" + injected)
        answer = client.reply()
        assert answer.code == 421
        assert client.rest() == b""
    assert traced(shared_gateway, answer)


def test_a_command_in_clear_in_place_of_the_handshake_is_not_run(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        assert client.line("STARTTLS").code == 220
        client.try_send(b"EHLO x.test\r\nNOOP\r\n")
        assert b"250" not in client.rest()


def test_clear_text_on_the_implicit_tls_port_is_not_answered_in_clear(shared_gateway: Gateway) -> None:
    with RawClient(shared_gateway.ports["submissions"], source=STRANGER, greet=False) as client:
        client.try_send(b"EHLO client.test\r\n")
        said = client.rest()
        assert not said.startswith(b"2")
        assert b"250" not in said


def test_old_tls_versions_are_refused(shared_gateway: Gateway) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    address = ("127.0.0.1", shared_gateway.ports["submissions"])
    with (
        socket.create_connection(address, timeout=10.0) as plain_socket,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain_socket)


def test_a_message_is_stored_when_the_client_closes_tls_behind_the_dot(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.begin_data()
        client.send(message("tls-closed-1") + b".\r\n")
        assert isinstance(client.socket, ssl.SSLSocket)
    wait_stored(shared_gateway, "tls-closed-1")
    assert len(stored(shared_gateway, "tls-closed-1")) == 1


def test_a_pipelined_group_in_tls_is_answered_in_order(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.send(b"MAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<x@remote.test>\r\nFOO\r\nDATA\r\nQUIT\r\n")
        assert client.codes(5) == [250, 554, 500, 554, 221]


# --- AUTH -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_auth_without_tls_is_refused_and_the_password_not_looked_at(shared_gateway: Gateway, listener: str) -> None:
    with RawClient(shared_gateway.ports[listener], source=STRANGER) as client:
        client.ehlo()
        answer = client.login()
        assert answer.code == 538
        assert answer.id
        assert client.line("AUTH LOGIN").code == 538


def test_submission_takes_no_mail_before_auth(shared_gateway: Gateway) -> None:
    for listener in ("submission", "submissions"):
        with connect(shared_gateway, listener) as client:
            answer = client.line("MAIL FROM:<alice@example.org>")
            assert answer.code == 530
            assert answer.id
            assert client.line("RCPT TO:<alice@example.org>").code == 503


@pytest.mark.parametrize("mechanism", ["PLAIN", "plain", "Plain"])
@pytest.mark.parametrize("listener", ["smtp", "submission", "submissions"])
def test_the_name_of_a_mechanism_is_case_insensitive(shared_gateway: Gateway, listener: str, mechanism: str) -> None:
    with connect(shared_gateway, listener) as client:
        assert client.line(f"auth {mechanism} {plain(ALICE).decode()}").code == 235
        assert client.line("MAIL FROM:<alice@example.org>").code == 250
        assert client.line("RCPT TO:<x@remote.test>").code == 250


def test_plain_and_login_by_challenge(shared_gateway: Gateway) -> None:
    with connect(shared_gateway, "submission") as client:
        answer = client.line("AUTH PLAIN")
        assert (answer.code, answer.text) == (334, "")
        assert client.line(plain(ALICE)).code == 235
    with connect(shared_gateway, "submission") as client:
        assert client.line("AUTH login").lines == (b64encode(b"Username:").decode(),)
        assert client.line(b64encode(ALICE.encode())).lines == (b64encode(b"Password:").decode(),)
        assert client.line(b64encode(PASSWORD.encode())).code == 235
    with connect(shared_gateway, "submission") as client:
        assert client.line(b"AUTH LOGIN " + b64encode(ALICE.encode())).code == 334
        assert client.line(b64encode(PASSWORD.encode())).code == 235


def test_auth_ends_where_it_may_not_begin_again(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        client.envelope()
        assert client.login().code == 503
        assert client.line("RSET").code == 250
        assert client.login().code == 235
        assert client.login().code == 503
    with RawClient(shared_gateway.ports["submissions"], source=STRANGER, tls=True) as client:
        assert client.login().code == 503
        assert client.line("HELO client.test").code == 250
        assert client.login().code == 503


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"AUTH", 504),
        (b"AUTH CRAM-MD5", 504),
        (b"AUTH \xff", 504),
        (b"AUTH __init__", 504),
        (b"AUTH PLAIN =", 501),
        (b"AUTH PLAIN !!!", 501),
        (b"AUTH PLAIN YQ", 501),
        (b"AUTH PLAIN " + b64encode(b"alice"), 501),
        (b"AUTH PLAIN " + b64encode(b"\0alice@example.org\0"), 501),
        (b"AUTH PLAIN " + b64encode(b"\0\0secret"), 501),
        (b"AUTH PLAIN " + b64encode(b"\0a\0b\0c"), 501),
        (b"AUTH PLAIN " + b64encode(b"\0\xff\xfe\0secret"), 501),
        (b"AUTH PLAIN " + b64encode(b"bob@example.org\0alice@example.org\0" + PASSWORD.encode()), 501),
    ],
)
def test_a_malformed_auth_is_refused(shared_gateway: Gateway, command: bytes, code: int) -> None:
    with connect(shared_gateway) as client:
        answer = client.line(command)
        assert answer.code == code
        assert answer.id
        assert client.line("NOOP").code == 250


def test_auth_can_be_cancelled(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        for command in ("AUTH PLAIN", "AUTH LOGIN"):
            assert client.line(command).code == 334
            assert client.line("*").code == 501
        assert client.login().code == 235


def test_a_wrong_password_and_an_unknown_account_look_the_same(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        wrong = client.login(password="wrong")
        assert wrong.code == 535
    with connect(shared_gateway) as client:
        unknown = client.login("nobody@example.org", "wrong")
    assert (wrong.code, wrong.text.rpartition(" [")[0]) == (unknown.code, unknown.text.rpartition(" [")[0])
    assert traced(shared_gateway, wrong)


@pytest.mark.parametrize("octets", [600, 2000, 3000, 12000])
def test_a_long_initial_response_is_read(shared_gateway: Gateway, octets: int) -> None:
    response = b64encode(b"\0" + ALICE.encode() + b"\0" + b"p" * (octets * 3 // 4))
    with connect(shared_gateway) as client:
        answer = client.line(b"AUTH PLAIN " + response)
        assert answer.code in (501, 535)
        assert "too long" not in answer.text
        assert client.line("NOOP").code == 250


def test_a_long_continuation_is_read(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("AUTH PLAIN").code == 334
        answer = client.line(b64encode(b"\0" + ALICE.encode() + b"\0" + b"p" * 9000))
        assert answer.code == 501
        assert client.line("NOOP").code == 250


def test_a_command_behind_an_overlong_continuation_is_no_part_of_the_exchange(shared_gateway: Gateway) -> None:
    with connect(shared_gateway) as client:
        assert client.line("AUTH PLAIN").code == 334
        client.try_send(b"A" * 12_290 + b"\r\nVRFY a\r\n")
        assert client.reply().code == 500
        try:
            answer = client.reply()
        except EOFError:
            return
        assert answer.code == 252


def test_the_fifth_wrong_password_ends_the_session(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(roles="smtp,admin", settings={"limits": {"login_window": "100ms"}}).start()
    with connect(gateway) as client:
        assert client.line(b"AUTH PLAIN " + plain("a@example.org", "x")).code == 535
        client.send(b"".join(b"AUTH PLAIN " + plain("a@example.org", "x") + b"\r\n" for _ in range(5)))
        answers = client.replies(4)
        assert [answer.code for answer in answers] == [535, 535, 535, 421]
        assert client.rest() == b""
    assert traced(gateway, answers[-1])


# --- faults of ours ---------------------------------------------------------------------------------------------------


def test_a_broken_database_shows_nothing_of_itself(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(roles="smtp,admin").start()
    database = open_database(gateway.data / "accounts.db", durable=False)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in tables:
        database.execute(f'ALTER TABLE "{name}" RENAME TO "away_{name}"')
    database.close()
    with connect(gateway) as client:
        answers = [client.login("nobody@example.org", "x")]
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        answers.append(client.line("RCPT TO:<carol@example.org>"))
        for answer in answers:
            assert answer.code == 451
            assert answer.lines[0].startswith("4.3.0 Local error; try again later [")
            assert "table" not in answer.text
        assert client.line("NOOP").code == 250
    assert "no such table" in gateway.log()
    assert traced(gateway, answers[0])
