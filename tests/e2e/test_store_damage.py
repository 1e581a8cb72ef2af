"""A damaged index under running sessions, and the operator's commands that look for damage."""

import poplib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapwire import Wire, client_context
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway

USERS = ("erin@example.org", "frank@example.org", "grace@example.org")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(users=USERS) as running:
        yield running


def mail(subject: str) -> bytes:
    return f"Subject: {subject}\r\n\r\nbody\r\n".encode()


def index_of(gateway: Gateway, user: str) -> Path:
    return gateway.data / "mail" / "example.org" / user.partition("@")[0] / "index.db"


def maildrop(gateway: Gateway, user: str) -> bytes:
    client = poplib.POP3_SSL("127.0.0.1", gateway.ports["pop3s"], context=client_context(), timeout=15)
    try:
        client.user(user)
        return client.pass_(PASSWORD)
    finally:
        client.close()


def damage(path: Path) -> None:
    """As a restore that went wrong leaves it: SQLite has what it read before in memory, and would not notice."""
    wrong = path.with_name("restored")
    wrong.write_bytes(b"\xff" * 50_000)
    shutil.chown(wrong, path.owner(), path.group())
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    wrong.replace(path)


def subjects(wire: Wire) -> bytes:
    return wire.ask("FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")


def test_a_damaged_index_ends_its_sessions_and_loses_nothing(gateway: Gateway) -> None:
    user, other = USERS[:2]
    for number in range(3):
        gateway.send(user, mail(f"number {number}"))
    gateway.wait_mails(user, 3)
    gateway.send(other, mail("other"))
    gateway.wait_mails(other, 1)
    with Wire(gateway, user=user) as wire, Wire(gateway, user=other) as bystander:
        wire.ask("SELECT INBOX")
        bystander.ask("SELECT INBOX")
        wire.ask("STORE 2 +FLAGS (\\Flagged)")
        damage(index_of(gateway, user))
        assert b"t NO [UNAVAILABLE]" in wire.ask("STATUS INBOX (MESSAGES)")
        assert b"* BYE The mailbox is gone\r\n" in wire.ask("NOOP")
        assert wire.line() == b""
        assert b"t OK" in bystander.ask("NOOP")
        with Wire(gateway, user=user) as again:
            assert b"* 3 EXISTS" in again.ask("SELECT INBOX")
            answer = subjects(again)
            assert [b"number %d" % number in answer for number in range(3)] == [True] * 3
            assert b"* 2 FETCH (FLAGS (\\Flagged)" in answer
    gateway.send(user, mail("afterwards"))
    assert len(gateway.wait_mails(user, 4)) == 4
    assert "an index was damaged" in gateway.log()


def test_a_damaged_index_met_by_a_delivery_and_by_pop3(gateway: Gateway) -> None:
    user = USERS[2]
    gateway.send(user, mail("before"))
    gateway.wait_mails(user, 1)
    damage(index_of(gateway, user))
    gateway.send(user, mail("after"))
    # The first attempt meets the damage and mends it; the next delivers.
    (row,) = wait_until(lambda: gateway.queue(), 15, "the deferral")
    gateway.cli("queue", "retry", str(row["id"])).expect()
    assert len(gateway.wait_mails(user, 2)) == 2
    damage(index_of(gateway, user))
    with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
        maildrop(gateway, user)
    assert maildrop(gateway, user).startswith(b"+OK 2")


def test_the_operator_s_commands(gateway: Gateway) -> None:
    user = USERS[1]
    gateway.send(user, mail("to count"))
    gateway.wait_mails(user, 1)
    found = gateway.cli("store", "check", user)
    assert (found.code, found.stdout) == (0, "")
    (index_of(gateway, user).parent / "Maildir" / ".no&way" / "cur").mkdir(parents=True)
    found = gateway.cli("store", "check")
    assert found.code == 1
    assert ".no&way" in found.stdout
    assert "made anew" in gateway.cli("store", "rebuild", user).expect().stdout
    (index_of(gateway, user).parent / "Maildir" / ".no&way" / "cur").rmdir()
    assert gateway.cli("store", "check", "--deep", user).code == 0
    for command in ("check", "rebuild"):
        found = gateway.cli("store", command, "nobody@example.org")
        assert (found.code, found.stderr) == (1, "smarthost: nobody@example.org has no mail here\n")
    with Wire(gateway, user=user) as wire:
        assert b"EXISTS" in wire.ask("SELECT INBOX")
