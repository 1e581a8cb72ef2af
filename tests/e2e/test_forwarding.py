"""What an address here hands on elsewhere: SPF passes there, the author's signature stays good, a chain tells what was
found here, and a bounce finds the sender.
"""

import asyncio
import re
import time
from collections.abc import Iterator

import pytest

from gateway.core.address import parse_mailbox
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.arc import ArcResult, verify_arc
from gateway.senderauth.dkim import verify_dkim
from gateway.storage.sqlite_dkim import FRESH_S
from tests.senderauth.opinions import opinions_missing, rspamd
from tests.senderauth.signing import MESSAGE, record, rsa_key, sealed_by, signed
from tests.support.fakes import FakeResolver
from tests.support.gateway import STRANGER, Gateway
from tests.support.remote import Remote, rows
from tests.support.tlssink import Taken

KEYS = [record(rsa_key()[1]), record(rsa_key()[1], domain="list.example")]  # lines for FakeResolver
TAGGING = """
stage: message
rules:
  - note: tag
    when: '"tag me" in message.subject'
    do: {tag_subject: "[tagged]"}
"""


@pytest.fixture(scope="module")
def gateway(remote: Remote) -> Iterator[Gateway]:
    """example.org has a key that signs; other.example has none."""
    domains = ("example.org", "other.example")
    with Gateway(
        remote.folder / "gateway", settings=remote.settings, domains=domains, policies={"40-tag.yaml": TAGGING}
    ) as running:
        made = running.cli("dkim", "new", "example.org").expect().stdout
        (line,) = re.findall(r"^  (\S+)\. IN TXT \( (.*) \)$", made, re.MULTILINE)
        remote.dns.add(f"{line[0]}. TXT {line[1]}")
        KEYS.append(f"{line[0]} TXT " + "".join(re.findall(r'"([^"]*)"', line[1])))
        running.cli("dkim", "rotate", "example.org").expect()
        time.sleep(FRESH_S)  # what a worker read before does not hold any longer
        yield running


def chain(message: bytes) -> ArcResult:
    return asyncio.run(verify_arc(parse_header(message), MemoryBlob(message), FakeResolver(*KEYS)))


def signatures(message: bytes) -> list[str]:
    found = asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), FakeResolver(*KEYS)))
    return [each.result for each in found]


def forwarded(
    gateway: Gateway,
    remote: Remote,
    message: bytes,
    *,
    sender: str = "anna@sender.example",
    alias: str = "",
    more: tuple[str, ...] = (),
    source: str = STRANGER,
) -> Taken:
    """What the remote side gets of a stranger's mail to an alias; more: targets of the alias beside it."""
    domain, address = remote.place()
    alias = alias or f"{domain.partition('.')[0]}@example.org"
    gateway.cli("alias", "add", alias, f"x@{domain}", *more).expect()
    with remote.sink(address) as sink:
        gateway.send(alias, message, sender=sender, source=source)
        (taken,) = sink.wait_messages(1)
        return taken


def test_the_reverse_path_is_ours_and_the_author_s_signature_stays_good(gateway: Gateway, remote: Remote) -> None:
    taken = forwarded(gateway, remote, signed())
    path = parse_mailbox(re.findall(r"<(.*)>", taken.mail)[0])
    assert path.domain.ascii == "example.org"
    assert path.local_part.startswith("SRS0=")
    assert path.local_part.endswith("=sender.example=anna")
    assert signatures(taken.data) == ["pass"]
    assert chain(taken.data) == ArcResult("pass", ("example.org",))
    head = taken.data.partition(b"\r\n\r\n")[0]
    assert (
        head.index(b"ARC-Seal:")
        < head.index(b"ARC-Authentication-Results: i=1; gateway.test;")
        < head.index(b"Received:")
    )


def test_a_copy_that_stays_here_has_the_sender_s_own(gateway: Gateway, remote: Remote) -> None:
    user = "alice@example.org"
    before = len(gateway.mails(user))
    taken = forwarded(gateway, remote, signed(), more=(user,))
    stored = gateway.wait_mails(user, before + 1)[-1]
    assert stored.startswith(b"Return-Path: <anna@sender.example>\r\n")
    assert b"ARC-Seal" not in stored
    assert "<SRS0=" in taken.mail


def test_a_chain_goes_on(gateway: Gateway, remote: Remote) -> None:
    remote.dns.add(_parts(KEYS[1]))
    taken = forwarded(gateway, remote, sealed_by("list.example", signed()))
    assert chain(taken.data) == ArcResult("pass", ("example.org", "list.example"))


def _parts(line: str) -> str:
    """A record's text in pieces that a name server can send."""
    name, _, text = line.partition(" TXT ")
    return f"{name}. TXT " + " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))


def test_what_we_change_breaks_the_signature_and_not_the_chain(gateway: Gateway, remote: Remote) -> None:
    taken = forwarded(gateway, remote, signed(MESSAGE.replace(b"One\r\n two", b"tag me")))
    assert b"\r\nSubject: [tagged] tag me\r\n" in taken.data
    assert signatures(taken.data) == ["fail"]
    assert chain(taken.data) == ArcResult("pass", ("example.org",))


@pytest.mark.peers
@pytest.mark.skipif(opinions_missing() is not None, reason=str(opinions_missing()))
def test_rspamd_believes_the_chain(gateway: Gateway, remote: Remote) -> None:
    """Of one hand and of two, and though the subject was changed here."""
    remote.dns.add(*map(_parts, KEYS[:2]))
    one = forwarded(gateway, remote, signed(MESSAGE.replace(b"One\r\n two", b"tag me")))
    two = forwarded(gateway, remote, sealed_by("list.example", signed()))
    with rspamd(remote.dns.address) as second:
        opinions = [second.ask(each.data, "203.0.113.7", "mx.test", "x@example.org") for each in (one, two)]
        broken = second.ask(two.data.replace(b"Hello", b"Hullo"), "203.0.113.7", "mx.test", "x@example.org")
    assert [each.arc for each in opinions] == ["pass", "pass"]
    assert [set(each.dkim.values()) for each in opinions] == [{"fail"}, {"pass"}]
    assert broken.arc == "fail"


def test_a_domain_without_a_key_rewrites_and_does_not_seal(gateway: Gateway, remote: Remote) -> None:
    taken = forwarded(gateway, remote, signed(), alias="out@other.example")
    assert "@other.example>" in taken.mail
    assert b"ARC-" not in taken.data


@pytest.mark.parametrize(("sender", "source"), [("bob@example.org", "127.0.0.1"), ("", STRANGER)])
def test_our_own_and_the_null_reverse_path_stay(gateway: Gateway, remote: Remote, sender: str, source: str) -> None:
    taken = forwarded(gateway, remote, MESSAGE, sender=sender, source=source)
    assert f"<{sender}>" in taken.mail


def test_a_bounce_finds_the_sender(gateway: Gateway, remote: Remote) -> None:
    senders, address = remote.place()
    sender = f"anna@{senders}"
    taken = forwarded(gateway, remote, MESSAGE, sender=sender)
    path = re.findall(r"<(.*)>", taken.mail)[0]
    with remote.sink(address) as sink:
        # Some hosts change the case.
        gateway.send(path.lower(), b"Subject: bounce\r\n\r\nx\r\n", sender="", source=STRANGER)
        (bounce,) = sink.wait_messages(1)
    assert bounce.forward_paths == (sender,)
    assert "<>" in bounce.mail


def test_our_own_notice_finds_the_sender(gateway: Gateway, remote: Remote) -> None:
    """The host that it is handed on to refuses it."""
    senders, address = remote.place()
    domain, there = remote.place()
    gateway.cli("alias", "add", "refused@example.org", f"x@{domain}").expect()
    with (
        remote.sink(there, replies={"RCPT": "550 5.1.1 nobody"}) as _,
        remote.sink(address) as sink,
    ):
        gateway.send("refused@example.org", MESSAGE, sender=f"anna@{senders}", source=STRANGER)
        (notice,) = sink.wait_messages(1)
    assert notice.forward_paths == (f"anna@{senders}",)
    assert b"refused@example.org" in notice.data


def test_nobody_relays_by_a_rewritten_path(gateway: Gateway, remote: Remote) -> None:
    taken = forwarded(gateway, remote, MESSAGE, sender="anna@victim.test")
    path = re.findall(r"<(.*)>", taken.mail)[0]
    with gateway.smtp(source=STRANGER) as client:
        client.mail("spammer@elsewhere.test")
        code, text = client.rcpt(path)
        assert (code, text[:5]) == (554, b"5.7.1")
        client.rset()
        client.mail("")
        for changed in (
            path.replace("anna", "anne"),
            path.replace("victim.test", "other.test"),
            f"SRS0=x=y=z=a@{path[-11:]}",
        ):
            code, text = client.rcpt(changed)
            assert (code, text[:5]) == (550, b"5.1.1"), changed
        assert client.rcpt(path)[0] == 250
        client.rset()
    assert not [row for row in rows(gateway) if "victim" in str(row)]


def test_a_long_sender_is_taken_and_found_again(gateway: Gateway, remote: Remote) -> None:
    """Reverse-paths of lists and forwarders have local parts far beyond 64 octets."""
    sender = f"bounces+{'x' * 90}=list@sender.example"
    taken = forwarded(gateway, remote, MESSAGE, sender=sender)
    assert f"=sender.example={sender.partition('@')[0]}@example.org" in taken.mail
