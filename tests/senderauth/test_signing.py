"""DKIM signatures that are made: they verify here and by dkimpy, of any header; no field that is seen can be added."""

import time
from functools import cache

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.message.header import parse_header
from gateway.senderauth.bodyhash import BodyHashes
from gateway.senderauth.signing import ALGORITHMS, SigningKey, keys_for, new_private_key, signature_field
from tests.senderauth.signing import MESSAGE
from tests.senderauth.test_dkim import verified


@cache
def key(algorithm: str = "rsa", domain: str = "sender.example") -> SigningKey:
    return SigningKey(domain, "k1", new_private_key(algorithm))


def line(of: SigningKey) -> str:
    return f"{of.selector}._domainkey.{of.domain} TXT {of.record}"


def sealed(message: bytes, by: SigningKey) -> bytes:
    header = parse_header(message)
    hashes = BodyHashes([("relaxed", None)])
    hashes.feed(message[header.end :])
    hashes.finish()
    return signature_field(by, header.fields, hashes.digest("relaxed", None), int(time.time())) + message


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_signed_verifies(algorithm: str) -> None:
    by = key(algorithm)
    message = sealed(MESSAGE, by)
    (found,) = verified(message, line(by))
    assert (found.result, found.domain, found.selector) == ("pass", "sender.example", "k1")
    assert found.algorithm == f"{algorithm}-sha256"
    assert all(len(each) <= 78 for each in message.partition(b"From:")[0].split(b"\r\n"))


def test_a_long_selector() -> None:
    by = SigningKey("sender.example", f"{'a' * 60}.{'b' * 60}", key().private)
    assert [each.result for each in verified(sealed(MESSAGE, by), line(by))] == ["pass"]


def test_dkimpy_verifies_it_too() -> None:
    """With RSA: for Ed25519 it wants another library."""
    assert dkim.verify(sealed(MESSAGE, key()), dnsfunc=lambda name, timeout: key().record.encode())


@pytest.mark.parametrize(
    "name", ["From", "To", "Cc", "Subject", "Date", "Reply-To", "Message-ID", "MIME-Version", "Content-Type"]
)
def test_no_field_that_a_reader_sees_can_be_added(name: str) -> None:
    message = sealed(MESSAGE, key())
    signature, _, rest = message.partition(b"From:")
    added = f"{name}: x\r\n".encode()
    for altered in (
        signature + added + b"From:" + rest,
        message.replace(b"\r\n\r\nHello", b"\r\n" + added + b"\r\nHello"),
    ):
        (found,) = verified(altered, line(key()))
        assert (found.result, found.reason) == ("fail", "signature did not verify")


def test_what_relays_and_lists_add_on_top_does_no_harm() -> None:
    message = b"Received: by x\r\nList-Id: <l.example>\r\nX-A: b\r\n" + sealed(MESSAGE, key())
    assert [each.result for each in verified(message, line(key()))] == ["pass"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Subject", "to", "X-A", "List-Id"]), st.text("ab \t;=:\u00fc", max_size=90)),
        max_size=8,
    ),
    st.text("ab \t\n", max_size=60),
    st.sampled_from(ALGORITHMS),
)  # fmt: skip
def test_any_header_and_body(fields: list[tuple[str, str]], body: str, algorithm: str) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    text = body.replace("\n", "\r\n") + "\r\n"
    message = f"From: a@sender.example\r\n{head}\r\n{text}".encode()
    (found,) = verified(sealed(message, key(algorithm)), line(key(algorithm)))
    assert (found.result, found.reason) == ("pass", "")


class Keys:
    """`SigningKeys` of a few domains; asked: in order."""

    def __init__(self, *domains: str) -> None:
        self._domains = domains
        self.asked: list[str] = []
        self.are_there = bool(domains)

    def active(self, domain: str) -> tuple[SigningKey, ...]:
        self.asked.append(domain)
        return (key("ed25519", domain),) if domain in self._domains else ()


@pytest.mark.parametrize(
    ("author", "domains", "signs"),
    [
        ("a@sender.example", ["sender.example"], "sender.example"),
        ("a@mail.sender.example", ["sender.example"], "sender.example"),
        ("a@mail.sender.example", ["sender.example", "mail.sender.example"], "mail.sender.example"),
        ("a@sender.example", ["mail.sender.example", "example.org"], ""),
        ("a@notsender.example", ["sender.example"], ""),
        ("a@sender.example, b@example.org", ["sender.example", "example.org"], ""),
        ("a@[192.0.2.1]", ["sender.example"], ""),
    ],
)  # fmt: skip
def test_who_signs(author: str, domains: list[str], signs: str) -> None:
    found = keys_for(parse_header(f"From: {author}\r\n\r\n".encode()), Keys(*domains))
    assert [each.domain for each in found] == ([signs] if signs else [])
