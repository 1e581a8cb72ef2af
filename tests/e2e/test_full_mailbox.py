"""A full mailbox, met by a stranger's server, by the queue, by IMAP and by the operator."""

import imaplib
import json
import smtplib
from collections.abc import Iterator

import pytest

from tests.support.gateway import PASSWORD, STRANGER, Gateway
from tests.support.imapwire import Wire, client_context
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway

USERS = ("ivy@example.org", "jack@example.org", "kate@example.org")
POLICY = {
    "40-recipient.yaml": """\
stage: recipient
rules:
  - defer: the mailbox is full
    when: recipient.over_quota and not client.trusted
    reply: 452 4.2.2 <{recipient.address}>: the mailbox is full
"""
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(users=USERS, settings={"store": {"quota": "20KB"}}, policies=POLICY) as running:
        yield running


def mail(size: int, subject: str = "size") -> bytes:
    return f"From: a@elsewhere.test\r\nSubject: {subject}\r\n\r\n".encode() + b"line\r\n" * (size // 6)


def test_a_mailbox_fills_up(gateway: Gateway) -> None:
    user = USERS[0]
    gateway.send(user, mail(10_000))
    gateway.send(user, mail(7_000, "near"))
    mails = gateway.wait_mails(user, 3)
    warning = next(each for each in mails if b"Your mailbox is 8" in each)
    assert b"Auto-Submitted: auto-generated\r\n" in warning
    assert b"of the 20 kB that you have here" in warning
    with Wire(gateway, user=user) as wire:
        answer = wire.ask("GETQUOTAROOT INBOX")
        assert b'* QUOTAROOT INBOX ""\r\n* QUOTA "" (STORAGE ' in answer
        assert answer.split(b"(STORAGE ")[1].split()[1] == b"20)"
        octets = mail(4_000)
        assert b"t NO [OVERQUOTA]" in wire.ask(b"APPEND Sent {%d+}\r\n%b" % (len(octets), octets))
        wire.ask("SELECT INBOX")
        assert b"t NO [OVERQUOTA]" in wire.ask("COPY 1 Sent")
    gateway.send(user, mail(4_000, "beyond"))  # within the grace
    gateway.wait_mails(user, 4)
    with gateway.smtp(source=STRANGER) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail("a@elsewhere.test", [user], mail(100))
        code, text = refused.value.recipients[user]
        assert (code, text.startswith(b"4.2.2 <ivy@example.org>: the mailbox is full")) == (452, True)
    with imaplib.IMAP4_SSL("127.0.0.1", gateway.ports["imaps"], ssl_context=client_context(), timeout=15) as client:
        client.login(user, PASSWORD)
        client.select("INBOX")
        client.store("1:*", "+FLAGS", "(\\Deleted)")
        client.expunge()
    gateway.send(user, mail(100, "room again"))
    wait_until(lambda: any(b"room again" in each for each in gateway.mails(user)), 20, "the message")


def test_what_was_accepted_waits_in_the_queue(gateway: Gateway) -> None:
    user = USERS[1]
    gateway.cli("user", "quota", user, "1KB").expect()
    gateway.send(user, mail(3_000, "waits"))
    (row,) = wait_until(lambda: gateway.queue(), 15, "the message in the queue")
    assert "4.2.2" in json.dumps(row)
    found = gateway.cli("user", "quota", user, "default").expect().stdout
    assert found.split()[4:] == [user, "0", "kB", "20", "kB", "0"]
    gateway.cli("queue", "retry", str(row["id"])).expect()
    gateway.wait_mails(user, 1)


def test_the_operator_sees_and_sets_limits(gateway: Gateway) -> None:
    user = USERS[2]
    rows = json.loads(gateway.cli("user", "quota", "--json").expect().stdout)
    assert {row["address"] for row in rows} >= set(USERS)
    assert gateway.cli("user", "quota", user, "5GB").expect().stdout.splitlines()[1].split() == [
        user, "0", "kB", "5.0", "GB", "0",
    ]  # fmt: skip
    assert "none" in gateway.cli("user", "quota", user, "none").expect().stdout
    for size in ("many", "-1", "5XB", "0"):
        assert gateway.cli("user", "quota", user, size).code == 2
    assert gateway.cli("user", "quota", "nobody@example.org").code == 1
