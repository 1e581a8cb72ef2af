"""ARC chains checked (RFC 8617): who has handled a message and changed it, each sealing what the one before found.

dkimpy reads the tags. A chain's work is bounded: fifty sets, each field canonicalised and hashed once, one body hash.
"""

import base64
from dataclasses import dataclass

from dkim.canonicalization import CanonicalizationPolicy, InvalidCanonicalizationPolicyError

from gateway.core.ports import Resolver
from gateway.message.blob import Blob
from gateway.message.header import Header
from gateway.senderauth.arcset import ArcSet, ChainHash, read_sets, tag_domain, tag_key_name
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.headerhash import header_digest
from gateway.senderauth.keys import Flaw, PublicKey, Tags, fetch_keys

RESULTS = ("none", "pass", "fail", "temperror")


@dataclass(frozen=True, slots=True)
class ArcResult:
    """result: one of RESULTS; sealers: d= of the seals in A-labels, the newest first, of a chain that passes."""

    result: str
    sealers: tuple[str, ...] = ()
    reason: str = ""


async def verify_arc(header: Header, blob: Blob, resolver: Resolver) -> ArcResult:
    """The caller has the deadline."""
    try:
        sets = read_sets(header.fields)
        if not sets:
            return ArcResult("none")
        names = {tag_key_name(tags) for each in sets for tags in (each.seal_tags, sets[-1].message_tags)}
        keys = await fetch_keys(names, resolver)
        await _check_message(sets[-1], header, blob, keys)
        _check_seals(sets, keys)
    except Flaw as flaw:
        return ArcResult("temperror" if flaw.result == "temperror" else "fail", reason=str(flaw))
    return ArcResult("pass", tuple(tag_domain(each.seal_tags) for each in reversed(sets)))


async def _check_message(newest: ArcSet, header: Header, blob: Blob, keys: dict[str, PublicKey | Flaw]) -> None:
    """Only the newest has to be good still: the others' text has been changed since by those who sealed later."""
    tags = newest.message_tags
    try:
        forms = CanonicalizationPolicy.from_c_value(tags.get(b"c", b"relaxed/relaxed"))
    except InvalidCanonicalizationPolicyError:
        raise Flaw("fail", "unknown c=") from None
    form, limit = forms.body_algorithm.name.decode(), int(tags[b"l"]) if tags.get(b"l") else None
    hashes = BodyHashes([(form, limit)])
    await hash_body(hashes, blob, header.end)
    if limit is not None and limit != hashes.length(form):
        raise Flaw("fail", "l= leaves a part of the body unsigned")
    if hashes.digest(form, limit) != _decoded(tags[b"bh"]):
        raise Flaw("fail", "body hash of the newest set did not verify")
    names = [name.strip().lower() for name in tags[b"h"].split(b":")]
    others = [field for field in header.fields if field is not newest.message]
    _verify(keys, tags, header_digest(forms, others, names, newest.message.raw), "message signature of the newest set")


def _check_seals(sets: list[ArcSet], keys: dict[str, PublicKey | Flaw]) -> None:
    chain = ChainHash()
    for number, each in enumerate(sets, 1):
        _verify(keys, each.seal_tags, chain.add(each.results.raw, each.message.raw, each.seal.raw), f"seal {number}")


def _verify(keys: dict[str, PublicKey | Flaw], tags: Tags, digest: bytes, what: str) -> None:
    key = keys[tag_key_name(tags)]
    if isinstance(key, Flaw):
        raise Flaw(key.result, f"{what}: {key}")
    if key.algorithm.encode() != tags[b"a"] or not key.verifies(_decoded(tags[b"b"]), digest):
        raise Flaw("fail", f"{what} did not verify")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        raise Flaw("fail", "no base64") from None
