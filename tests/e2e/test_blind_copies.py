"""A blind copy goes now and by the usual way, once, whatever becomes of the message."""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway
from tests.support.process import free_port, wait_until
from tests.support.raw import RawClient, message, temporary_gateway
from tests.support.tlssink import TlsSink

RULES = """\
stage: message
rules:
  - note: journal
    do: {bcc: journal@example.org}
  - note: for each that differs
    when: recipient.local == "bob"
    do: {bcc: journal@example.org, add_header: "X-For: bob"}
  - note: another way
    when: message.subject == "route"
    do: {route: elsewhere}
  - hold: held
    when: message.subject == "hold"
  - quarantine: kept
    when: message.subject == "quarantine"
  - discard: dropped
    when: message.subject == "discard"
"""
USERS = ("alice@example.org", "bob@example.org", "journal@example.org")
LARGE = b"".join(b"%05d " % number + b"x" * 70 + b"\r\n" for number in range(1500))  # over what a queue row takes


@pytest.fixture(scope="module")
def sink() -> Iterator[TlsSink]:
    with TlsSink(port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(sink: TlsSink) -> Iterator[Gateway]:
    settings = {"routes.elsewhere": {"host": f"smtp:{sink.host}:{sink.port}"}}
    with temporary_gateway(policies={"50-message.yaml": RULES}, settings=settings, users=USERS) as running:
        yield running


def send(gateway: Gateway, sender: str, *recipients: str, subject: str, body: bytes = b"") -> str:
    """The queue id."""
    with RawClient(gateway.ports["smtp"]) as client:
        client.ehlo("client.test")
        client.line(f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            assert client.line(f"RCPT TO:<{recipient}>").code == 250
        client.line("DATA")
        client.send(message(subject) + body + b".\r\n")
        reply = client.reply()
        assert reply.code == 250
        return reply.text.split()[-1]


def of(gateway: Gateway, user: str, sender: str) -> list[bytes]:
    return [mail for mail in gateway.mails(user) if mail.startswith(f"Return-Path: <{sender}>\r\n".encode())]


@pytest.mark.parametrize("subject", ["hold", "quarantine", "discard", "route"])
@pytest.mark.parametrize("body", [b"", LARGE], ids=["small", "large"])
def test_whatever_becomes_of_the_message(gateway: Gateway, sink: TlsSink, subject: str, body: bytes) -> None:
    sender = f"{subject}{len(body)}@client.test"
    queue_id = send(gateway, sender, "alice@example.org", subject=subject, body=body)
    wait_until(lambda: of(gateway, "journal@example.org", sender), 15, "the copy")
    (copy,) = of(gateway, "journal@example.org", sender)
    assert copy.endswith(body or b"\r\n")
    assert of(gateway, "alice@example.org", sender) == []
    assert "journal@example.org" not in [path for taken in sink.messages for path in taken.forward_paths]
    assert "<journal@example.org>" in gateway.cli("trace", queue_id).stdout


def test_once_for_all_parts_of_a_message(gateway: Gateway) -> None:
    send(gateway, "parts@client.test", "alice@example.org", "bob@example.org", subject="parts")
    for user in USERS:
        wait_until(lambda user=user: of(gateway, user, "parts@client.test"), 15, f"mail for {user}")
        assert len(of(gateway, user, "parts@client.test")) == 1
    assert b"X-For: bob" in of(gateway, "bob@example.org", "parts@client.test")[0]
    assert b"X-For: bob" not in of(gateway, "alice@example.org", "parts@client.test")[0]


def test_none_for_who_gets_the_message_anyway(gateway: Gateway) -> None:
    send(gateway, "same@client.test", "Journal@example.org", subject="same")
    wait_until(lambda: of(gateway, "journal@example.org", "same@client.test"), 15, "the message")
    assert len(of(gateway, "journal@example.org", "same@client.test")) == 1
