"""ARC chains checked (RFC 8617): who has handled a message and changed it, each sealing what the one before found.

dkimpy reads the tags. A chain's work is bounded: fifty sets, each field canonicalised and hashed once, one body hash.
"""

import base64
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass

import dkim
from dkim.canonicalization import CanonicalizationPolicy, InvalidCanonicalizationPolicyError, Relaxed
from dkim.util import InvalidTagValueList

from gateway.core.address import parse_domain
from gateway.core.ports import Resolver
from gateway.message.blob import Blob
from gateway.message.header import Field, Header
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.headerhash import header_digest, without_value
from gateway.senderauth.keys import MAX_SIGNATURE, SELECTOR, Flaw, PublicKey, Tags, fetch_keys, key_name, signature_tags

MAX_INSTANCES = 50  # RFC 8617 4.2.1
RESULTS = ("none", "pass", "fail", "temperror")
_RESULTS_FIELD, _MESSAGE, _SEAL = "arc-authentication-results", "arc-message-signature", "arc-seal"
_INSTANCE = re.compile(rb"[1-9][0-9]?")
_RESULTS_INSTANCE = re.compile(rb"\s*i\s*=\s*([0-9]+)\s*;")
_MESSAGE_TAGS = [b"i", b"a", b"b", b"bh", b"d", b"h", b"s"]
_SEAL_TAGS = [b"i", b"cv", b"a", b"b", b"d", b"s"]


@dataclass(frozen=True, slots=True)
class ArcResult:
    """result: one of RESULTS; sealers: d= of the seals in A-labels, the newest first, of a chain that passes."""

    result: str
    sealers: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Set:
    """What one handler added."""

    results: Field
    message: Field
    message_tags: Tags
    seal: Field
    seal_tags: Tags


async def verify_arc(header: Header, blob: Blob, resolver: Resolver) -> ArcResult:
    """The caller has the deadline."""
    try:
        sets = _sets(header)
        if not sets:
            return ArcResult("none")
        names = {_key_name(tags) for each in sets for tags in (each.seal_tags, sets[-1].message_tags)}
        keys = await fetch_keys(names, resolver)
        await _check_message(sets[-1], header, blob, keys)
        _check_seals(sets, keys)
    except Flaw as flaw:
        return ArcResult("temperror" if flaw.result == "temperror" else "fail", reason=str(flaw))
    return ArcResult("pass", tuple(_domain(each.seal_tags) for each in reversed(sets)))


# --- reading ----------------------------------------------------------------------------------------------------------


def _sets(header: Header) -> list[_Set]:
    """In order, whole, and each saying of the one before what it has to. Raises Flaw."""
    found: dict[int, dict[str, list[tuple[Field, Tags]]]] = defaultdict(lambda: defaultdict(list))
    for field in header.fields:
        name = field.name.lower()
        if name in (_RESULTS_FIELD, _MESSAGE, _SEAL):
            tags = {} if name == _RESULTS_FIELD else _tags(field, name)
            found[_instance(field, tags, name)][name].append((field, tags))
            if len(found) > MAX_INSTANCES:
                raise Flaw("fail", f"over {MAX_INSTANCES} sets")
    if sorted(found) != list(range(1, len(found) + 1)):
        raise Flaw("fail", "a set is missing")
    sets = []
    for number in sorted(found):
        parts = found[number]
        if {name: len(each) for name, each in parts.items()} != {_RESULTS_FIELD: 1, _MESSAGE: 1, _SEAL: 1}:
            raise Flaw("fail", f"set {number} is not whole")
        (results, _), message, seal = parts[_RESULTS_FIELD][0], parts[_MESSAGE][0], parts[_SEAL][0]
        if seal[1][b"cv"] != (b"none" if number == 1 else b"pass"):
            raise Flaw("fail", f"seal {number} does not find the chain before it good")
        sets.append(_Set(results, *message, *seal))
    return sets


def _tags(field: Field, name: str) -> Tags:
    if len(field.raw) > MAX_SIGNATURE:
        raise Flaw("fail", "signature too long")
    try:
        tags = signature_tags(field.value)
        dkim.validate_signature_fields(tags, _SEAL_TAGS if name == _SEAL else _MESSAGE_TAGS, True)
        signed = [word.strip().lower() for word in tags.get(b"h", b"").split(b":")]
        if (name == _SEAL and b"h" in tags) or b"arc-seal" in signed:
            raise Flaw("fail", "a field signs what it must not")
        _domain(tags)
        if not SELECTOR.fullmatch(tags[b"s"].decode("ascii")):
            raise Flaw("fail", "s= is no selector")
    except (InvalidTagValueList, dkim.ValidationError, ValueError):
        raise Flaw("fail", f"{field.name} cannot be read") from None
    return tags


def _instance(field: Field, tags: Tags, name: str) -> int:
    match = _RESULTS_INSTANCE.match(field.value)
    text = (match[1] if match else b"") if name == _RESULTS_FIELD else tags[b"i"]
    if not _INSTANCE.fullmatch(text) or int(text) > MAX_INSTANCES:
        raise Flaw("fail", f"{field.name} has no instance")
    return int(text)


def _domain(tags: Tags) -> str:
    """Raises ValueError."""
    domain = parse_domain(tags[b"d"].decode("utf-8"))
    if domain.is_literal:
        raise ValueError("an address")
    return domain.ascii


def _key_name(tags: Tags) -> str:
    return key_name(_domain(tags), tags[b"s"].decode("ascii"))


# --- checking ---------------------------------------------------------------------------------------------------------


async def _check_message(newest: _Set, header: Header, blob: Blob, keys: dict[str, PublicKey | Flaw]) -> None:
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


def _check_seals(sets: list[_Set], keys: dict[str, PublicKey | Flaw]) -> None:
    """RFC 8617 5.1.1: each over all sets up to its own, in order, itself last and without its value."""
    before = hashlib.sha256()
    for number, each in enumerate(sets, 1):
        before.update(_relaxed(each.results.raw) + _relaxed(each.message.raw))
        own = before.copy()
        own.update(_relaxed(each.seal.raw, is_signature=True).removesuffix(b"\r\n"))
        _verify(keys, each.seal_tags, own.digest(), f"seal {number}")
        before.update(_relaxed(each.seal.raw))


def _relaxed(raw: bytes, *, is_signature: bool = False) -> bytes:
    name, _, value = raw.partition(b":")
    ((name, value),) = Relaxed.canonicalize_headers([(name, without_value(value) if is_signature else value)])
    return bytes(name + b":" + value)


def _verify(keys: dict[str, PublicKey | Flaw], tags: Tags, digest: bytes, what: str) -> None:
    key = keys[_key_name(tags)]
    if isinstance(key, Flaw):
        raise Flaw(key.result, f"{what}: {key}")
    if key.algorithm.encode() != tags[b"a"] or not key.verifies(_decoded(tags[b"b"]), digest):
        raise Flaw("fail", f"{what} did not verify")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        raise Flaw("fail", "no base64") from None
