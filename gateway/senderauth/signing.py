"""DKIM signatures made (RFC 6376, 8301, 8463): relaxed/relaxed, fields that a reader sees signed once more than they
are there, so that none can be added.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from dkim.canonicalization import CanonicalizationPolicy

from gateway.core.address import covering
from gateway.message.header import Field, Header
from gateway.senderauth.dmarc import author_domain
from gateway.senderauth.headerhash import header_digest
from gateway.senderauth.keys import key_name

ALGORITHMS = ("rsa", "ed25519")
RSA_BITS = 2048  # its record fits into one answer over UDP
# Signed as often as they are there, and once more.
_OVERSIGNED = (
    b"from", b"to", b"cc", b"subject", b"date", b"reply-to", b"message-id", b"mime-version", b"content-type",
    b"content-transfer-encoding",
)  # fmt: skip
# Signed where they are; lists and forwarders add these.
_SIGNED = (
    b"sender", b"in-reply-to", b"references", b"content-id", b"content-description", b"resent-date", b"resent-from",
    b"resent-sender", b"resent-to", b"resent-cc", b"resent-message-id", b"list-id", b"list-help", b"list-unsubscribe",
    b"list-unsubscribe-post", b"list-subscribe", b"list-post", b"list-owner", b"list-archive",
)  # fmt: skip
FORMS = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
_LINE = 72  # columns


@dataclass(frozen=True, slots=True)
class SigningKey:
    """domain: d=, in A-labels; private: PKCS #8 in PEM."""

    domain: str
    selector: str
    private: bytes

    @property
    def algorithm(self) -> str:
        return "rsa" if isinstance(_load(self.private), RSAPrivateKey) else "ed25519"

    @property
    def name(self) -> str:
        """In DNS, without the last dot."""
        return key_name(self.domain, self.selector)

    @property
    def record(self) -> str:
        """What is to be published at `name`."""
        public = _load(self.private).public_key()
        if self.algorithm == "rsa":
            octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k={self.algorithm}; p={base64.b64encode(octets).decode('ascii')}"


class SigningKeys(Protocol):
    @property
    def are_there(self) -> bool:
        """Does any sign for any domain?"""

    def active(self, domain: str) -> tuple[SigningKey, ...]:
        """Those that sign for the domain; quick."""


def new_private_key(algorithm: str) -> bytes:
    """PKCS #8 in PEM. An RSA key takes a tenth of a second."""
    key = generate_private_key(65537, RSA_BITS) if algorithm == "rsa" else Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def keys_for(header: Header, keys: SigningKeys) -> tuple[SigningKey, ...]:
    """Of the author's domain or the nearest one above it: relaxed alignment takes that too."""
    if not keys.are_there:
        return ()
    domain, _ = author_domain(header)
    return nearest_keys(domain, keys)


def nearest_keys(domain: str, keys: SigningKeys) -> tuple[SigningKey, ...]:
    """Of the domain, or of the nearest one above it that has any."""
    above = (name[1:] for name in covering(domain) if name.startswith("."))  # the domain itself is the first
    return next((found for name in above if (found := keys.active(name))), ())


def signature_field(key: SigningKey, fields: Sequence[Field], body_hash: bytes, now: int) -> bytes:
    """The DKIM-Signature field with its line ends. body_hash: SHA-256 of the body in relaxed form."""
    names = signed_names(fields)
    tags = [
        "v=1", f"a={key.algorithm}-sha256", "c=relaxed/relaxed", f"d={key.domain}", f"s={key.selector}", f"t={now}",
        "h=" + ":".join(name.decode("ascii") for name in names),
        "bh=" + base64.b64encode(body_hash).decode("ascii"), "b=",
    ]  # fmt: skip
    unsigned = "DKIM-Signature: " + folded(tags)
    digest = header_digest(FORMS, fields, names, unsigned.encode("ascii"))
    value = signature_value(key, digest)
    lines = [value[at : at + _LINE] for at in range(0, len(value), _LINE)]
    return (unsigned + "\r\n\t".join(lines) + "\r\n").encode("ascii")


def signed_names(fields: Sequence[Field]) -> list[bytes]:
    """For h=, in lower case."""
    present = [name for field in fields if (name := field.name.lower().encode()) in (*_OVERSIGNED, *_SIGNED)]
    return [*present, *_OVERSIGNED]


def signature_value(key: SigningKey, digest: bytes) -> str:
    """For b=. digest: SHA-256."""
    return base64.b64encode(_sign(_load(key.private), digest)).decode("ascii")


def folded(tags: list[str]) -> str:
    """Tags on lines of their own; h= is broken after colons."""
    out = []
    for tag in tags:
        lines = [""]
        for part in tag.replace(":", ":\0").split("\0"):
            if lines[-1].strip() and len(lines[-1]) + len(part) > _LINE:  # no line of blanks alone
                lines.append(" ")
            lines[-1] += part
        out.append("\r\n\t".join(lines))
    return ";\r\n\t".join(out)


def _sign(key: RSAPrivateKey | Ed25519PrivateKey, digest: bytes) -> bytes:
    if isinstance(key, RSAPrivateKey):
        return key.sign(digest, PKCS1v15(), Prehashed(SHA256()))
    return key.sign(digest)


@lru_cache(maxsize=1024)
def _load(private: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    key = load_pem_private_key(private, None)
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise ValueError("no RSA and no Ed25519 key")
    return key
