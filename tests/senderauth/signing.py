"""Signed messages for tests, by dkimpy's own signer: another pen than the one that reads them here."""

import base64
import re
from functools import cache

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

MESSAGE = (
    b"From: Anna <anna@sender.example>\r\nTo: alice@example.org\r\nSubject: One\r\n two\r\n"
    b"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\n"
    b"Hello  there,\t friend. \r\n\r\nBye.\r\n\r\n\r\n"
)


def rsa_key(bits: int = 2048) -> tuple[bytes, str]:
    """The private key as PEM, and the p= of its record."""
    return _rsa_key(bits)


@cache
def _rsa_key(bits: int) -> tuple[bytes, str]:
    key = generate_private_key(65537, bits)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return pem, base64.b64encode(
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).decode()


@cache
def ed25519_key() -> str:
    """The p= of a record."""
    public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(public).decode()


def record(p: str, extra: str = "k=rsa", *, selector: str = "s", domain: str = "sender.example") -> str:
    """A line for FakeResolver."""
    return f"{selector}._domainkey.{domain} TXT v=DKIM1; {extra}; p={p}"


def signed(
    message: bytes = MESSAGE,
    *,
    forms: tuple[bytes, bytes] = (b"relaxed", b"relaxed"),
    selector: bytes = b"s",
    domain: bytes = b"sender.example",
    identity: bytes | None = None,
    fields: list[bytes] | None = None,
    length: bool = False,
    bits: int = 2048,
    more: bytes = b"",
) -> bytes:
    """The message with an RSA signature above it. more: tags to sign with the others, `x=1; `."""
    signer = dkim.DKIM(message)
    if more:
        _insert_tags(signer, more)
    return (
        bytes(signer.sign(selector, domain, rsa_key(bits)[0], b"rsa-sha256", identity, forms, fields, length)) + message
    )


def sealed_by(domain: str, message: bytes) -> bytes:
    """The message as a host of `domain` passes it on: what it found, which it says was good, and its ARC set above."""
    chain = "pass" if b"ARC-Seal" in message else "none"
    found = f"Authentication-Results: {domain}; arc={chain}; dmarc=pass header.from=sender.example\r\n".encode()
    fields = dkim.arc_sign(found + message, b"s", domain.encode(), rsa_key()[0], domain.encode())
    assert len(fields) == 3
    return b"".join(fields) + found + message


def _insert_tags(signer: dkim.DKIM, more: bytes) -> None:
    """dkimpy has no word for further tags: they go in where it puts the fields together."""
    tags = [tuple(tag.split(b"=", 1)) for tag in re.split(rb";\s*", more.strip(b"; ")) if tag]
    generate = signer.gen_header

    def with_more(fields: list[tuple[bytes, bytes]], *rest: object, **named: object) -> bytes:
        kept = [field for field in fields if field[0] not in dict(tags)]
        return bytes(generate([*kept[:-1], *tags, kept[-1]], *rest, **named))

    signer.gen_header = with_more
