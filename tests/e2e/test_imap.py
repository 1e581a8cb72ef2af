"""IMAP on the wire: sign-in, TLS, literals, IDLE and bounds, octets by hand."""

import itertools
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapwire import Wire
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway

_NUMBERS = itertools.count()
USERS = tuple(f"user{number}@example.org" for number in range(40))
MESSAGE = b"From: a@example.org\r\nSubject: hello\r\n\r\nbody\r\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings = {"limits": {"free_space": 0, "size": "2MB"}}
    with temporary_gateway(users=USERS, settings=settings) as running:
        yield running


@pytest.fixture
def user() -> str:
    return USERS[next(_NUMBERS)]


# --- sign-in ------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_before_tls(gateway: Gateway, user: str) -> None:
    with Wire(gateway, "imap") as wire:
        assert b"LOGINDISABLED" in wire.greeting
        assert b"AUTH=" not in wire.greeting
        assert wire.ask(f'LOGIN {user} "{PASSWORD}"').startswith(b"t NO [PRIVACYREQUIRED]")
        assert wire.ask("AUTHENTICATE PLAIN").startswith(b"t NO [PRIVACYREQUIRED]")
        assert wire.ask("SELECT INBOX").startswith(b"t BAD")
        assert wire.ask("STARTTLS").startswith(b"t OK")
        wire.start_tls()
        assert b"AUTH=PLAIN" in wire.ask("CAPABILITY")
        assert b'* ID ("name" "Smarthost")\r\nt OK' in wire.ask('ID ("name" "x")')
        assert b"STARTTLS" not in wire.ask("CAPABILITY")
        assert wire.ask("STARTTLS").startswith(b"t BAD")
        assert b"t OK [CAPABILITY IMAP4rev1 " in wire.ask(f'LOGIN {user} "{PASSWORD}"')


def test_octets_behind_starttls_end_the_session(gateway: Gateway) -> None:
    with Wire(gateway, "imap") as wire:
        wire.send(b"t STARTTLS\r\nx NOOP\r\n")
        answer = wire.until(b"x")
        assert answer.startswith(b"* BYE")
        assert b"x OK" not in answer


def test_all_ways_to_sign_in(gateway: Gateway, user: str) -> None:
    plain = b64encode(f"\0{user}\0{PASSWORD}".encode())
    with Wire(gateway) as wire:
        assert b"t OK" in wire.ask(b"AUTHENTICATE PLAIN " + plain)
    with Wire(gateway) as wire:
        wire.send(b"t authenticate plain\r\n")
        assert wire.line() == b"+ \r\n"
        wire.send(plain + b"\r\n")
        assert b"t OK" in wire.until()
        assert wire.ask("LOGIN a b").startswith(b"t BAD")
    with Wire(gateway) as wire:
        wire.send(b"t AUTHENTICATE LOGIN\r\n")
        wire.line()
        wire.send(b64encode(user.encode()) + b"\r\n")
        wire.line()
        wire.send(b64encode(PASSWORD.encode()) + b"\r\n")
        assert b"t OK" in wire.until()
    with Wire(gateway) as wire:
        wire.send(b"t AUTHENTICATE PLAIN\r\n")
        wire.line()
        wire.send(b"*\r\n")
        assert wire.until().startswith(b"t BAD")
        assert wire.ask("AUTHENTICATE PLAIN ////").startswith(b"t BAD")
        assert wire.ask("AUTHENTICATE NONE").startswith(b"t NO")
        wire.send(b"t LOGIN {%d}\r\n" % len(user))
        assert wire.line().startswith(b"+")
        wire.send(b"%b {%d+}\r\n%b\r\n" % (user.encode(), len(PASSWORD), PASSWORD.encode()))
        assert b"t OK" in wire.until()


def test_a_wrong_password_is_told_and_counted(gateway: Gateway, user: str) -> None:
    before = gateway.metric("smarthost_auth_attempts_total", service="imap", result="failure")
    with Wire(gateway) as wire:
        assert wire.ask(f"LOGIN {user} wrong").startswith(b"t NO [AUTHENTICATIONFAILED]")
        assert wire.ask(f'LOGIN {user} "{PASSWORD}"').startswith(b"t OK")
    wait_until(
        lambda: gateway.metric("smarthost_auth_attempts_total", service="imap", result="failure") == before + 1,
        10,
        "the failure counted",
    )


# --- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"x" * 20_000 + b"\r\n", b"* BYE"),
        (b"t LOGIN {10000000000}\r\n", b"t BAD"),
        (b"t LOGIN {5000}\r\n", b"t BAD"),
        (b"t LOGIN {99999999999999999999999}\r\n", b"t BAD"),
        (b"t LOGIN {4+}\r\nuser {2+}\r\npw\r\n", b"t NO"),
        (b"\r\n", b"* BAD"),
        (b"t\r\n", b"t BAD"),
        (b"t FETCH " + b"(" * 5000 + b"\r\n", b"t BAD"),
        (b"\x00\xff\xfe\r\n", b"* BAD"),
        (b"GET / HTTP/1.1\r\n", b"GET BAD"),
    ],
)
def test_what_strangers_send_is_bounded(gateway: Gateway, octets: bytes, expected: bytes) -> None:
    with Wire(gateway) as wire:
        wire.send(octets)
        assert wire.line().startswith(expected)


def test_errors_without_end_end_the_session(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        wire.send(b"t NONSENSE\r\n" * 30)
        answer = b""
        while line := wire.line():
            answer += line
        assert answer.count(b"t BAD") <= 22
        assert b"* BYE" in answer


def test_a_literal_that_is_cut_short_stores_nothing(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire:
        wire.send(b"t APPEND INBOX {1000}\r\n")
        assert wire.line().startswith(b"+")
        wire.send(b"x" * 500)
    with Wire(gateway, user=user) as wire:
        assert b"MESSAGES 0" in wire.ask("STATUS INBOX (MESSAGES)")


def test_a_message_that_is_too_large_is_refused_and_the_session_goes_on(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire:
        assert wire.ask("APPEND INBOX {3000000}").startswith(b"t NO [TOOBIG]")
        wire.send(b"t APPEND INBOX {3000000+}\r\n" + b"x" * 3_000_000 + b"\r\n")
        assert wire.until().startswith(b"t NO [TOOBIG]")
        large = MESSAGE + (b"y" * 98 + b"\r\n") * 15_000
        wire.send(b"t APPEND INBOX {%d+}\r\n" % len(large) + large + b"\r\n")
        assert b"t OK [APPENDUID" in wire.until()
        wire.ask("SELECT INBOX")
        answer = wire.ask("FETCH 1 (RFC822.SIZE BODY.PEEK[])")
        assert large in answer
        assert b"RFC822.SIZE %d" % len(large) in answer
    assert not list((gateway.data / "mail").glob("tmp*"))


def test_commands_in_one_packet_are_answered_in_order(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire:
        wire.send(b"a SELECT INBOX\r\nb NOOP\r\nc STATUS INBOX (MESSAGES)\r\nd LOGOUT\r\n")
        answer = wire.until(b"d")
        assert re.findall(rb"^([abcd]) OK", answer, re.MULTILINE) == [b"a", b"b", b"c", b"d"]
        assert wire.line() == b""


# --- IDLE ---------------------------------------------------------------------------------------------------------


def test_idle_tells_of_mail_as_it_comes(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire, Wire(gateway, user=user) as other:
        wire.ask("SELECT INBOX")
        wire.send(b"t IDLE\r\n")
        assert wire.line().startswith(b"+")
        gateway.send(user, MESSAGE)
        began = time.monotonic()
        assert wire.line() == b"* 1 EXISTS\r\n"
        assert time.monotonic() - began < 5
        assert wire.line() == b"* 1 RECENT\r\n"
        other.ask("SELECT INBOX")
        other.ask("STORE 1 +FLAGS (\\Flagged)")
        assert wire.line() == b"* 1 FETCH (FLAGS (\\Flagged \\Recent))\r\n"
        other.ask("STORE 1 +FLAGS.SILENT (\\Deleted)")
        other.ask("EXPUNGE")
        while (line := wire.line()) != b"* 1 EXPUNGE\r\n":
            assert b"FETCH" in line
        wire.send(b"DO")
        time.sleep(0.05)
        wire.send(b"NE\r\nx NOOP\r\n")  # commands behind it are answered too
        answer = wire.until(b"x")
        assert b"t OK Idled" in answer
        assert b"x OK" in answer


def put_by_hand(gateway: Gateway, user: str, folder: str, number: int) -> Path:
    """As another program does."""
    local, _, domain = user.partition("@")
    maildir = gateway.data / "mail" / domain / local / "Maildir"
    path = maildir / folder / f"{number}.other"
    (maildir / "tmp" / path.name).write_bytes(MESSAGE)
    (maildir / "tmp" / path.name).chmod(0o644)
    return (maildir / "tmp" / path.name).rename(path)


def test_idle_tells_of_what_another_program_puts_into_the_folders(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire, Wire(gateway, user=user) as other:
        for each in (wire, other):
            each.ask("SELECT INBOX")
            each.send(b"t IDLE\r\n")
            assert each.line().startswith(b"+")
        for number, folder in enumerate(("new", "new", "cur"), 1):
            time.sleep(1.5)  # the watch is at rest
            put_by_hand(gateway, user, folder, number)
            began = time.monotonic()
            for each in (wire, other):
                assert each.line() == b"* %d EXISTS\r\n" % number
                assert each.line().endswith(b" RECENT\r\n")
            assert time.monotonic() - began < 3
        local, _, domain = user.partition("@")
        time.sleep(1.5)
        for path in (gateway.data / "mail" / domain / local / "Maildir" / "cur").iterdir():
            if ",U=2:" in path.name:
                path.unlink()
        began = time.monotonic()
        assert [each.line() for each in (wire, other)] == [b"* 2 EXPUNGE\r\n"] * 2
        assert time.monotonic() - began < 3


def test_idle_ends_with_bye_when_the_mailbox_is_gone(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire, Wire(gateway, user=user) as other:
        other.ask("CREATE going")
        wire.ask("SELECT going")
        wire.send(b"t IDLE\r\n")
        assert wire.line().startswith(b"+")
        assert b"t OK" in other.ask("DELETE going")
        assert wire.line() == b"* BYE The mailbox is gone\r\n"
        assert wire.line() == b""


def test_idle_needs_no_mailbox(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire:
        wire.send(b"t IDLE\r\nDONE\r\nx NOOP\r\n")
        answer = wire.until(b"x")
        assert answer.startswith(b"+ Idling\r\nt OK Idled\r\nx OK")


def test_something_else_than_done_ends_idle_with_bad(gateway: Gateway, user: str) -> None:
    with Wire(gateway, user=user) as wire:
        wire.send(b"t IDLE\r\n")
        wire.line()
        wire.send(b"x NOOP\r\n")
        assert wire.line().startswith(b"t BAD")
        assert b"t OK" in wire.ask("NOOP")


def test_a_stop_says_good_bye(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    with gateway, Wire(gateway, user="alice@example.org") as wire:
        gateway.stop()
        assert wire.line().startswith(b"* BYE")
