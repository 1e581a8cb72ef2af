"""seen.sender_before in a running gateway of two workers: which mail makes a sender known, and a state.db that is lost.

Newcomers' messages are marked by a field, so that what the rules saw can be read from the stored mail.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import STRANGER, Gateway
from tests.support.raw import WORKERS, RawClient, RawReply, message, only_worker, temporary_gateway, wait_stored

SENDER = """\
stage: sender
rules:
  - note: newcomer
    when: not seen.sender_before
    do: {add_header: "X-Newcomer: yes"}
  - reject: refused at sender
    when: ends_with(sender.local, "+sender") and not seen.sender_before
"""
MESSAGE = """\
stage: message
rules:
  - reject: refused
    when: '"reject" in header("X-Do")'
  - defer: deferred
    when: '"defer" in header("X-Do")'
  - quarantine: kept back
    when: '"quarantine" in header("X-Do")'
  - quarantine: kept back from bob
    when: '"half" in header("X-Do") and recipient.local == "bob"'
  - hold: held
    when: '"hold" in header("X-Do")'
  - discard: dropped
    when: '"discard" in header("X-Do")'
"""
POLICIES = {"30-sender.yaml": SENDER, "50-message.yaml": MESSAGE}
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(policies=POLICIES) as running:
        yield running


def newcomer() -> str:
    return f"s{next(NUMBERS)}@elsewhere.test"


def send(
    gateway: Gateway, sender: str, marker: str, do: str = "", *recipients: str, source: str = STRANGER
) -> RawReply:
    """A whole message; the answer to its content, or the first that is not positive."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo()
        commands = [
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{to}>" for to in recipients or ("alice@example.org",)),
            "DATA",
        ]
        for command in commands:
            answer = client.line(command)
            if answer.code >= 400:
                return answer
        field = f"X-Do: {do}\r\n".encode() if do else b""
        client.send(field + message(marker) + b".\r\n")
        return client.reply()


def is_new(gateway: Gateway, sender: str) -> bool:
    """Does a message of this sender count as its first? It is delivered by the look."""
    marker = f"look-{next(NUMBERS)}"
    assert send(gateway, sender, marker).code == 250
    return b"\r\nX-Newcomer: yes\r\n" in wait_stored(gateway, marker).partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(("first", "second"), [WORKERS, WORKERS[::-1]])
def test_a_delivered_message_makes_its_sender_known_to_all_workers(gateway: Gateway, first: str, second: str) -> None:
    sender = newcomer()
    with only_worker(gateway, first):
        assert is_new(gateway, sender)
    with only_worker(gateway, second):
        assert not is_new(gateway, sender)
    assert not is_new(gateway, sender)


def test_a_sender_is_its_whole_address_in_whatever_case(gateway: Gateway) -> None:
    sender = newcomer()
    assert is_new(gateway, sender)
    assert not is_new(gateway, sender.upper())
    local, _, domain = sender.partition("@")
    assert is_new(gateway, f"{local}+x@{domain}")
    assert is_new(gateway, f"{local}@sub.{domain}")


def test_the_null_sender_is_never_known(gateway: Gateway) -> None:
    assert [is_new(gateway, "") for _ in range(3)] == [True] * 3


@pytest.mark.parametrize(
    ("do", "code"), [("reject", 550), ("defer", 450), ("quarantine", 250), ("hold", 250), ("discard", 250)]
)
def test_mail_that_nobody_gets_makes_nobody_known(gateway: Gateway, do: str, code: int) -> None:
    sender = newcomer()
    for _ in range(2):
        assert send(gateway, sender, f"{do}-it", do).code == code
    assert is_new(gateway, sender)


def test_mail_that_one_of_two_gets_counts(gateway: Gateway) -> None:
    sender, both = newcomer(), ("bob@example.org", "alice@example.org")
    assert send(gateway, sender, "half-it", "half", both[0]).code == 250
    assert is_new(gateway, sender)
    other = newcomer()
    assert send(gateway, other, "half-it", "half", *both).code == 250
    assert not is_new(gateway, other)


def test_mail_refused_before_its_content_makes_nobody_known(gateway: Gateway) -> None:
    sender = newcomer().replace("@", "+sender@")
    for _ in range(2):
        assert send(gateway, sender, "never").code == 550
    other = newcomer()
    assert send(gateway, other, "never", "", "nobody@example.org").code == 550
    assert send(gateway, other, "never", "", "x@stranger.test").code == 554
    assert is_new(gateway, other)


def test_a_transaction_that_breaks_off_makes_nobody_known(gateway: Gateway) -> None:
    sender = newcomer()
    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.envelope(sender=sender)
        assert client.line("RSET").code == 250
        client.begin_data(sender=sender)
        client.send(message("cut off"))
    assert is_new(gateway, sender)


def test_the_second_message_of_one_session_is_no_newcomers(gateway: Gateway) -> None:
    sender = newcomer()
    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        for number in range(2):
            client.begin_data(sender=sender)
            client.send(message(f"session-{sender}-{number}") + b".\r\n")
            assert client.reply().code == 250
    found = [b"X-Newcomer" in wait_stored(gateway, f"session-{sender}-{number}") for number in range(2)]
    assert found == [True, False]


# --- a memory that is lost --------------------------------------------------------------------------------------------


def state_files(gateway: Gateway) -> list[Path]:
    return list(gateway.data.glob("state.db*"))


def test_a_restart_forgets_nobody_and_a_lost_file_everybody(make_gateway: Callable[..., Gateway]) -> None:
    gateway, sender = make_gateway(policies=POLICIES).start(), newcomer()
    assert is_new(gateway, sender)
    assert gateway.stop() == 0
    gateway.start()
    assert not is_new(gateway, sender)
    assert gateway.stop() == 0
    for path in state_files(gateway):
        path.unlink()
    gateway.start()
    assert [is_new(gateway, sender), is_new(gateway, sender)] == [True, False]


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
def test_a_file_that_breaks_in_mid_run_costs_no_mail(make_gateway: Callable[..., Gateway], damage: str) -> None:
    """What is not known of a sender is unknown, and the rule is skipped; what cannot be written is not remembered."""
    settings = {"checks.seen": {"timeout": "500ms"}}  # SQLite may wait long for a file that cannot get well
    gateway, senders = make_gateway(policies=POLICIES, settings=settings).start(), [newcomer() for _ in range(4)]
    assert is_new(gateway, senders[0])
    for path in state_files(gateway):
        if path.name.endswith("-shm"):
            continue  # shared memory: to cut it would be a signal, no damage of a disk
        with path.open("r+b") as file:
            if damage == "cut":
                file.truncate(0)
            else:
                file.write(b"\xff" * path.stat().st_size)
    for number, sender in enumerate(senders):
        assert send(gateway, sender, f"broken-{number}").code == 250
        wait_stored(gateway, f"broken-{number}")
    assert not [line for line in gateway.log().splitlines() if line.startswith("{") and level(line) == "critical"]


def level(line: str) -> str:
    return str(json.loads(line).get("level"))
