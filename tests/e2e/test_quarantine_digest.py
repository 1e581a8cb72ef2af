"""Kept mail, as its recipient meets it: a digest, a link that shows, a button that acts, the message in the inbox."""

import email
import email.policy
import http.client
import json
import re
import socket
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import dkim
import pytest

from gateway.demo.samples import GTUBE, locked_zip
from gateway.queue.seals import signatures_of
from gateway.senderauth.signing import SigningKey, new_private_key
from tests.e2e.test_antivirus import attached, offered
from tests.support.gateway import STRANGER, Gateway, shipped_content_policy
from tests.support.process import free_port, wait_until
from tests.support.raw import RawClient, temporary_gateway

ALICE, BOB = "alice@example.org", "bob@example.org"
KEY = SigningKey("elsewhere.test", "s1", new_private_key("rsa"))


@pytest.fixture(scope="module")
def web_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(web_port: int) -> Iterator[Gateway]:
    settings = {
        "listen": {"web": [f"127.0.0.1:{web_port}"]},
        "web": {"url": f"http://127.0.0.1:{web_port}/", "tls": False},
        "quarantine": {"digest": ""},
    }
    policies = shipped_content_policy()
    recipient = """\
stage: recipient
rules:
  - reject: the recipient has blocked this sender
    when: recipient.blocks_sender
    reply: 550 5.7.1 no
"""
    with temporary_gateway(policies=policies | {"41-blocks.yaml": recipient}, settings=settings) as found:
        yield found


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]


def ask(url: str, method: str = "GET", body: bytes = b"") -> Answer:
    host, _, path = url.removeprefix("http://").partition("/")
    with closing(http.client.HTTPConnection(host, timeout=20)) as client:
        client.request(method, f"/{path}", body or None)
        answer = client.getresponse()
        return Answer(
            answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        )


def spam(subject: str, *, author: str = "winner@elsewhere.test", text: str = GTUBE) -> bytes:
    message = (
        f"From: The Lottery <{author}>\r\nTo: {ALICE}\r\nSubject: {subject}\r\n"
        f"Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{subject.replace(' ', '-')}@elsewhere.test>\r\n\r\n"
        f"{text}\r\n"
    ).encode()
    return signatures_of(message, (KEY,), int(time.time())) + message


def keep(gateway: Gateway, message: bytes, *, to: str = ALICE) -> None:
    answer = offered(gateway, message, to=to)
    assert answer.code == 250, answer


def digests(gateway: Gateway, user: str) -> list[bytes]:
    return [mail for mail in gateway.mails(user) if b"\r\nFrom: Mail quarantine <" in mail]


def digest_of(gateway: Gateway, user: str = ALICE) -> email.message.EmailMessage:
    """Sends the digests that are due, and gives the user's.

    Other mail may arrive meanwhile: what an earlier test had accepted, say.
    """
    before = len(digests(gateway, user))
    assert gateway.cli("quarantine", "digest", "--recipient", user).expect().stdout == "sent 1 digests\n"
    raw = wait_until(lambda: digests(gateway, user)[before:], 20, "the digest")[0]
    found = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(found, email.message.EmailMessage)
    return found


def text_of(digest: email.message.EmailMessage, subtype: str = "plain") -> str:
    part = digest.get_body((subtype,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def links_of(digest: email.message.EmailMessage, word: str, subject: str) -> str:
    """The link behind a word, of the entry with that subject."""
    entry = next(each for each in text_of(digest).split("\n\n") if f"Subject:  {subject}\n" in each)
    match = re.search(rf"^{word}:\s+(\S+)$", entry, re.MULTILINE)
    assert match is not None, entry
    return match[1]


def inbox(gateway: Gateway, subject: str, user: str = ALICE) -> bytes | None:
    return next((mail for mail in gateway.mails(user) if f"\r\nSubject: {subject}\r\n".encode() in mail), None)


def test_the_whole_way_from_quarantine_to_the_inbox(gateway: Gateway) -> None:
    message = spam("You have won")
    keep(gateway, message)
    digest = digest_of(gateway)
    assert str(digest["From"]) == "Mail quarantine <postmaster@example.org>"
    assert digest["Return-Path"] == "<>"
    assert digest["Auto-Submitted"] == "auto-generated"
    assert "1 message was kept back" in str(digest["Subject"])
    assert "kept because: spam" in text_of(digest)
    link = links_of(digest, "Release", "You have won")
    assert link in text_of(digest, "html").replace("&amp;", "&")
    for method in ("GET", "HEAD", "GET"):  # a link scanner
        page = ask(link, method)
        assert page.status == 200
    assert "You have won" in page.text
    assert "The Lottery" in page.text
    assert 'method="post"' in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert inbox(gateway, "You have won") is None
    done = ask(link, "POST")
    assert (done.status, "<h1>Released</h1>" in done.text) == (200, True), done.text
    stored = wait_until(lambda: inbox(gateway, "You have won"), 10, "the message")
    assert stored.endswith(message)
    assert re.search(rb"^X-Smarthost-Released: [0-9A-Z]{16} by recipient at gateway\.test; ", stored, re.MULTILINE)
    record = KEY.record.encode()
    assert dkim.verify(
        stored, dnsfunc=lambda name, timeout=5: record if name == b"s1._domainkey.elsewhere.test." else None
    )
    assert ask(link).status == 410
    assert ask(link, "POST").status == 410
    assert gateway.metric("smarthost_quarantine_releases_total", result="released") >= 1
    assert "sent 0 digests" in gateway.cli("quarantine", "digest").expect().stdout


def test_what_only_the_postmaster_may_release_has_no_link_to_do_so(gateway: Gateway) -> None:
    keep(gateway, attached(locked_zip(), "invoice.zip", "locked"))
    digest = digest_of(gateway)
    entry = next(each for each in text_of(digest).split("\n\n") if "Subject:  locked\n" in each)
    assert "only the postmaster can release it" in entry
    assert "Release:" not in entry
    number = re.search(r"number ([0-9A-Z]{16})", entry)
    assert number is not None
    # A link to block is no link to release.
    block = links_of(digest, "Block", "locked")
    assert "<h1>Block this sender?</h1>" in ask(block).text
    assert inbox(gateway, "locked") is None
    shown = gateway.cli("quarantine", "show", number[1]).expect().stdout
    assert "--- its files: invoice.zip" in shown
    assert "See the file." in shown


def test_a_blocked_sender_is_refused_from_then_on_for_this_recipient_alone(gateway: Gateway) -> None:
    author = "pest@elsewhere.test"
    keep(gateway, spam("first of a pest", author=author))
    digest = digest_of(gateway)
    link = links_of(digest, "Block", "first of a pest")
    assert f"Block {author}" in ask(link).text
    done = ask(link, "POST")
    assert "<h1>Blocked</h1>" in done.text
    assert author in gateway.cli("user", "senders", ALICE).expect().stdout
    harmless = spam("a second", author=author, text="Hello, see you at noon.")
    wait_until(lambda: offered(gateway, harmless).code == 550, 5, "the block")
    answer = offered(gateway, harmless)
    assert "takes no mail from you" in answer.text
    keep(gateway, spam("for bob", author=author, text="Hello, see you at noon."), to=BOB)
    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        assert client.line(f"MAIL FROM:<{author.upper()}>").code == 250
        assert client.line(f"RCPT TO:<{ALICE}>").code == 550
        assert client.line(f"RCPT TO:<{BOB}>").code == 250
    assert "used before" in ask(link, "POST").text
    gateway.cli("user", "senders", ALICE, "--forget", author).expect()
    wait_until(lambda: offered(gateway, harmless).code == 250, 5, "the block to be gone")


def test_a_made_up_or_changed_link_does_nothing(gateway: Gateway) -> None:
    keep(gateway, spam("untouched"))
    link = links_of(digest_of(gateway), "Release", "untouched")
    base, _, token = link.rpartition("/")
    wrong = [
        token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
        "A" + token[1:] if token[0] != "A" else "B" + token[1:],
        token[:-8],
        "",
        "x" * 5000,
        "%00",
        "..%2f..%2fetc%2fpasswd",
        "é".encode().hex(),
    ]
    for each in wrong:
        for method in ("GET", "POST"):
            answer = ask(f"{base}/{each}", method)
            assert answer.status in (404, 400), (each, answer)
    assert ask(link, "PUT").status == 404
    assert ask(link).status == 200
    assert inbox(gateway, "untouched") is None
    # base64 has several texts for the same octets: used is used.
    assert ask(link, "POST").status == 200
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        assert ask(f"{base}/{token[:-1]}{last}", "POST").status in (404, 410)
    wait_until(lambda: inbox(gateway, "untouched"), 10, "the message")
    assert sum(b"Subject: untouched\r\n" in mail for mail in gateway.mails(ALICE)) == 1


def test_links_expire(gateway: Gateway) -> None:
    keep(gateway, spam("too late"))
    link = links_of(digest_of(gateway), "Release", "too late")
    from gateway.quarantine.links import Links
    from gateway.storage.sqlite_accounts import SqliteAccounts

    accounts = SqliteAccounts(gateway.data / "accounts.db")
    links = Links(accounts.secret("quarantine links"))
    accounts.close()
    base, _, token = link.rpartition("/")
    read = links.read(token)
    assert read is not None
    assert 6 * 86400 < read.expires - time.time() < 8 * 86400
    from dataclasses import replace

    old = links.token(replace(read, expires=time.time() - 7200))
    answer = ask(f"{base}/{old}", "POST")
    assert (answer.status, "expired" in answer.text) == (410, True)
    assert inbox(gateway, "too late") is None


def test_hostile_text_is_shown_as_text(gateway: Gateway) -> None:
    subject = "=?utf-8?q?=3Cscript=3Ealert(1)=3C/script=3E_=E2=80=AEgpj=2Eexe?="
    html = "<html><style>x</style><script>alert(2)</script><b>Hi</b><a href='http://evil.test/'>bank</a> " + GTUBE
    message = (
        (
            f'From: "<img src=x onerror=alert(3)>" <h@elsewhere.test>\r\nTo: {ALICE}\r\nSubject: {subject}\r\n'
            "Message-ID: <hostile@elsewhere.test>\r\nContent-Type: text/html\r\n\r\n"
        ).encode()
        + html.encode()
        + b"\x1b[31m\x07\r\n"
    )
    keep(gateway, message)
    digest = digest_of(gateway)
    for part in (text_of(digest), text_of(digest, "html")):
        assert "\u202e" not in part
        assert "\x1b" not in part
    assert "<script" not in text_of(digest, "html")
    assert "<img" not in text_of(digest, "html")
    assert "&lt;script&gt;" in text_of(digest, "html")
    link = re.search(r"^Release:\s+(\S+)$", text_of(digest), re.MULTILINE)
    assert link is not None
    page = ask(link[1]).text
    assert "<script" not in page
    assert "<img" not in page
    assert "alert(2)" not in page
    assert "evil.test" not in page  # where a link leads is not clickable and not shown
    assert "Hi" in page
    shown = gateway.cli("quarantine", "list").expect().stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_request_that_is_too_large_is_refused(web_port: int, gateway: Gateway) -> None:
    with closing(socket.create_connection(("127.0.0.1", web_port), timeout=10)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)
        assert client.recv(12) in (b"HTTP/1.1 400", b"")


def test_no_slash_leads_elsewhere(gateway: Gateway) -> None:
    keep(gateway, spam("slash"))
    link = links_of(digest_of(gateway), "Release", "slash")
    answer = ask(f"{link}/")
    assert (answer.status, answer.headers.get("location")) == (404, None)


def test_the_daily_digest_comes_by_itself_once_a_day() -> None:
    port = free_port()
    settings = {
        "listen": {"web": [f"127.0.0.1:{port}"]},
        "web": {"url": f"https://mail.example.org:{port}"},
        "quarantine": {"digest": "00:00"},
    }
    with temporary_gateway(policies=shipped_content_policy(), settings=settings) as gateway:
        with closing(sqlite3.connect(gateway.data / "queue.db")) as connection:
            wait_until(lambda: connection.execute("SELECT day FROM done").fetchone(), 10, "the day to begin")
            keep(gateway, spam("for today"))
            connection.execute("UPDATE done SET day = '2026-01-01'")
            connection.commit()
        (raw,) = gateway.wait_mails(ALICE, 1)
        digest = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(digest, email.message.EmailMessage)
        link = links_of(digest, "Release", "for today")
        assert link.startswith(f"https://mail.example.org:{port}/quarantine/")
        # The same server in TLS, with the gateway's own certificate.
        context = ssl._create_unverified_context()
        with closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)) as client:
            client.request("GET", link[len(f"https://mail.example.org:{port}") :])
            assert client.getresponse().status == 200
        keep(gateway, spam("for tomorrow"))
        rows = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
        assert [row["subject"] for row in rows] == ["for today", "for tomorrow"]
        assert len(gateway.mails(ALICE)) == 1
