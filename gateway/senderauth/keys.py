"""Public keys of DKIM and ARC: a TXT record (RFC 6376 3.6.1, RFC 8301, RFC 8463) as a key that `cryptography` uses.

What a domain publishes is a stranger's word: a key's size and exponent are bounded, so that no check takes long.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from dkim.util import InvalidTagValueList, parse_tag_value

from gateway.core.ports import DnsFailure, Records, Resolver

MIN_RSA, MAX_RSA = 1024, 4096  # bits: RFC 8301 3.2
MAX_EXPONENT = 33  # bits
MAX_RECORD = 8192  # octets
MAX_SIGNATURE = 16 * 1024  # octets of one field
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
SELECTOR = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
MAX_NAME = 253  # octets of a name in DNS
_DIGEST = Prehashed(SHA256())
Tags = dict[bytes, bytes]


class KeyRefused(ValueError):
    """The text says why the record gives no key."""


class Flaw(Exception):
    """Why a signature has a result other than a pass: its word, and the reason as text."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result


@dataclass(frozen=True, slots=True)
class PublicKey:
    """is_testing: `t=y`; is_strict: `t=s`, an identity must be of the very domain."""

    key: RSAPublicKey | Ed25519PublicKey
    is_testing: bool
    is_strict: bool

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.key, RSAPublicKey) else "ed25519-sha256"

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """digest: SHA-256."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, PKCS1v15(), _DIGEST)
            else:
                self.key.verify(signature, digest)  # RFC 8463 3: of the digest, not of what was hashed
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=2048)
def parse_key(record: bytes) -> PublicKey:
    """A `_domainkey` record. Raises KeyRefused."""
    if len(record) > MAX_RECORD:
        raise KeyRefused("key record too long")
    try:
        tags = parse_tag_value(record)
    except InvalidTagValueList:
        raise KeyRefused("key record cannot be read") from None
    if b"v" in tags and (tags[b"v"] != b"DKIM1" or next(iter(tags)) != b"v"):
        raise KeyRefused("key record of another version")
    services, hashes = _words(tags.get(b"s", b"*")), _words(tags.get(b"h", b"sha256"))
    if not services & {b"*", b"email"}:
        raise KeyRefused("key is not for email")
    if b"sha256" not in hashes:
        raise KeyRefused("key is not for SHA-256")
    if b"p" not in tags:
        raise KeyRefused("key record without a key")
    try:
        octets = base64.b64decode(b"".join(tags[b"p"].split()), validate=True)
    except (binascii.Error, ValueError):
        raise KeyRefused("key is no base64") from None
    if not octets:
        raise KeyRefused("key revoked")
    flags = _words(tags.get(b"t", b""))
    return PublicKey(_load(tags.get(b"k", b"rsa"), octets), b"y" in flags, b"s" in flags)


def _words(value: bytes) -> set[bytes]:
    return {word.strip() for word in value.split(b":")}


def _load(kind: bytes, octets: bytes) -> RSAPublicKey | Ed25519PublicKey:
    if kind == b"ed25519":
        try:
            return Ed25519PublicKey.from_public_bytes(octets)
        except ValueError:
            raise KeyRefused("no Ed25519 key") from None
    if kind != b"rsa":
        raise KeyRefused("key of an unknown kind")
    try:
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("no RSA key") from None
    if not isinstance(key, RSAPublicKey):
        raise KeyRefused("no RSA key")
    if not MIN_RSA <= key.key_size <= MAX_RSA:
        raise KeyRefused(f"RSA key of {key.key_size} bits")
    if key.public_numbers().e.bit_length() > MAX_EXPONENT:
        raise KeyRefused("RSA key with a large exponent")
    return key


def signature_tags(value: bytes) -> Tags:
    """Of a field that signs, its base64 without blanks. Raises dkim.util.InvalidTagValueList."""
    tags: Tags = parse_tag_value(value)
    for tag in tags.keys() & {b"b", b"bh"}:
        tags[tag] = b"".join(tags[tag].split())  # dkimpy's look at them is quadratic in their blanks
    return tags


def key_name(domain: str, selector: str) -> str:
    return f"{selector}._domainkey.{domain}"


async def fetch_keys(names: set[str], resolver: Resolver) -> dict[str, PublicKey | Flaw]:
    """By name, side by side; the first of a name's records that can be read."""

    async def one(name: str) -> tuple[str, PublicKey | Flaw]:
        answer = await resolver.lookup(name, "TXT")
        if isinstance(answer, DnsFailure):
            return name, Flaw("temperror", f"key: DNS {answer.reason}")
        if not isinstance(answer, Records):
            return name, Flaw("permerror", "no key for signature")
        flaw = "no key for signature"
        for record in answer.values:
            try:
                return name, parse_key(record if isinstance(record, bytes) else b"")
            except KeyRefused as error:
                flaw = str(error)
        return name, Flaw("permerror", flaw)

    return dict(await asyncio.gather(*map(one, sorted(names))))
