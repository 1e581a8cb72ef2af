"""Outgoing mail is signed by the author's domain, once its key has taken over, for those who may write in its name."""

import asyncio
import re
import time
from collections.abc import Iterator

import dkim
import pytest

from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.dkim import verify_dkim
from gateway.storage.sqlite_dkim import FRESH_S
from tests.senderauth.opinions import opendkim_results, opinions_missing, rspamd
from tests.support.fakes import FakeResolver
from tests.support.gateway import Gateway
from tests.support.remote import Remote

ALICE = "alice@example.org"
KEYS: dict[str, bytes] = {}  # records by name


@pytest.fixture(scope="module")
def gateway(remote: Remote) -> Iterator[Gateway]:
    """With keys that have taken over while it ran."""
    with Gateway(remote.folder / "gateway", settings=remote.settings) as running:
        for algorithm in ("rsa", "ed25519"):
            made = running.cli("dkim", "new", "example.org", "--algorithm", algorithm).expect().stdout
            (line,) = re.findall(r"^  (\S+)\. IN TXT \( (.*) \)$", made, re.MULTILINE)
            remote.dns.add(f"{line[0]}. TXT {line[1]}")
            KEYS[line[0]] = "".join(re.findall(r'"([^"]*)"', line[1])).encode()
        out = running.cli("dkim", "rotate", "example.org").expect().stdout
        assert out.count("signs for example.org from now on.") == 2
        time.sleep(FRESH_S)  # what a worker read before does not hold any longer
        yield running


def sent(
    gateway: Gateway, remote: Remote, user: str, author: str, *, more: bytes = b"", body: bytes = b"Hi.\r\n"
) -> bytes:
    """What the remote side gets; user "": from an own network."""
    domain, address = remote.place()
    message = f"From: {author}\r\nTo: x@{domain}\r\nSubject: Signed\r\n".encode() + more + b"\r\n" + body
    with remote.sink(address) as sink:
        with gateway.smtp("submission" if user else "smtp", user=user) as client:
            client.sendmail(user or ALICE, [f"x@{domain}"], message)
        (taken,) = sink.wait_messages(1)
        return taken.data


def results(message: bytes) -> list[tuple[str, str]]:
    """Of each signature from the top: its result here, and its algorithm."""
    resolver = FakeResolver(*(f"{name} TXT {record.decode()}" for name, record in KEYS.items()))
    found = asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), resolver))
    return [(each.result, each.algorithm) for each in found]


BOTH = [("pass", "rsa-sha256"), ("pass", "ed25519-sha256")]


def test_a_user_s_mail_is_signed_with_the_fields_that_were_added(gateway: Gateway, remote: Remote) -> None:
    message = sent(gateway, remote, ALICE, ALICE)
    assert results(message) == BOTH
    assert dkim.verify(message, dnsfunc=lambda name, timeout=5: KEYS.get(name.decode().rstrip(".")))
    head = message.partition(b"\r\n\r\n")[0]
    assert b"\r\nMessage-ID: <" in head  # which the mail program had forgotten
    for added in (b"Message-ID: <other@example.org>", b"Subject: Another"):
        assert results(message.replace(b"\r\nTo:", b"\r\n" + added + b"\r\nTo:", 1))[0][0] == "fail"


def test_an_mta_s_mail_is_signed_too_and_a_signature_that_it_has_stays_good(gateway: Gateway, remote: Remote) -> None:
    assert results(sent(gateway, remote, "", "cron@app.example.org")) == BOTH
    first = sent(gateway, remote, "", ALICE)
    signed_before = first[first.index(b"DKIM-Signature:") :]
    domain, address = remote.place()
    with remote.sink(address) as sink:
        with gateway.smtp() as client:
            client.sendmail(ALICE, [f"x@{domain}"], signed_before)
        (taken,) = sink.wait_messages(1)
    assert results(taken.data) == BOTH + BOTH


@pytest.mark.peers
@pytest.mark.skipif(opinions_missing() is not None, reason=str(opinions_missing()))
def test_others_find_the_signatures_good(gateway: Gateway, remote: Remote) -> None:
    message = sent(gateway, remote, ALICE, ALICE)
    (found,) = opendkim_results([message], remote.dns.address)
    assert list(found.values()) == ["pass", "pass"]
    with rspamd(remote.dns.address) as second:
        opinion = second.ask(message, "203.0.113.7", "mx.test", ALICE)
    assert set(opinion.dkim.values()) == {"pass"}
    assert len(opinion.dkim) == 2


def test_a_large_message(gateway: Gateway, remote: Remote) -> None:
    body = b"".join(b"line %d \t of many  \r\n" % number for number in range(30_000))
    assert results(sent(gateway, remote, ALICE, ALICE, body=body)) == BOTH


@pytest.mark.parametrize(
    ("user", "author"),
    [
        (ALICE, "bob@example.org"),  # somebody else here
        (ALICE, "alice@example.org, bob@example.org"),
        ("", "someone@elsewhere.test"),  # no key of ours
    ],
)
def test_nobody_has_another_s_name_vouched_for(gateway: Gateway, remote: Remote, user: str, author: str) -> None:
    assert b"DKIM-Signature" not in sent(gateway, remote, user, author)


def test_strangers_mail_is_never_signed(gateway: Gateway) -> None:
    message = b"From: bob@example.org\r\nSubject: From outside\r\n\r\nx\r\n"
    gateway.send(ALICE, message, sender="x@elsewhere.test", source="127.0.0.9")
    (found,) = gateway.wait_mails(ALICE, 1)
    assert b"DKIM-Signature" not in found
    assert b"\tdkim=none;\r\n" in found
