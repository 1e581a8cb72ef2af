"""What a message is signed with on its way into the queue: DKIM for its author, ARC for what is handed on."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.message.blob import Blob
from gateway.message.header import Header, parse_header
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.results import Authentication, findings
from gateway.senderauth.sealing import arc_fields
from gateway.senderauth.signing import SigningKey, SigningKeys, nearest_keys, signature_field

MAX_SIGNED = 1000  # fields of a message that is signed: its h= may name each
_RELAXED = "relaxed"


@dataclass(frozen=True, slots=True)
class Seal:
    """The same body under each part's own header. keys: of DKIM; body_hash: in relaxed form."""

    keys: tuple[SigningKey, ...]
    body_hash: bytes

    def signatures(self, block: bytes, now: int) -> bytes:
        """DKIM, for a header block as it will go out, however it was edited."""
        fields = parse_header(block, len(block)).fields
        return b"".join(signature_field(key, fields, self.body_hash, now) for key in self.keys)

    def arc_set(self, key: SigningKey, block: bytes, hostname: str, found: Authentication, now: int) -> bytes:
        fields = parse_header(block, len(block)).fields
        return arc_fields(key, fields, self.body_hash, findings(hostname, found), found.arc.result, now)


async def sealed(header: Header, blob: Blob, keys: tuple[SigningKey, ...]) -> Seal | None:
    """None: it has more fields than are signed."""
    if len(header.fields) > MAX_SIGNED:
        return None
    hashes = BodyHashes([(_RELAXED, None)])
    await hash_body(hashes, blob, header.end)
    return Seal(keys, hashes.digest(_RELAXED, None))


def signatures_of(message: bytes, keys: tuple[SigningKey, ...], now: int) -> bytes:
    """DKIM, of a message of our own making."""
    header, hashes = parse_header(message), BodyHashes([(_RELAXED, None)])
    hashes.feed(message[header.end :])
    hashes.finish()
    return Seal(keys, hashes.digest(_RELAXED, None)).signatures(message[: header.end], now)


def sealing_key(domains: Iterable[str], keys: SigningKeys) -> SigningKey | None:
    """The RSA key, for ARC knows no other, of the first of the domains that has one."""
    found = (key for domain in domains for key in nearest_keys(domain, keys))
    return next((key for key in found if key.algorithm == "rsa"), None)
