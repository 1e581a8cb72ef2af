"""DKIM signatures checked (RFC 6376, 8301, 8463): dkimpy reads tags and canonicalises, `cryptography` does the sums.

All signatures share one reading of the body. What a stranger can write is bounded: how many signatures are looked at,
how long each may be, which keys count; a signature that cannot be read is a result with a reason, never an error.
"""

import asyncio
import base64
import re
import time
from collections import Counter
from dataclasses import dataclass, replace

import dkim
from dkim.canonicalization import CanonicalizationPolicy, InvalidCanonicalizationPolicyError
from dkim.util import InvalidTagValueList

from gateway.core.address import parse_domain
from gateway.core.ports import Resolver
from gateway.message.blob import INLINE_LIMIT, Blob
from gateway.message.header import Field, Header
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.headerhash import header_digest
from gateway.senderauth.keys import (
    MAX_NAME,
    MAX_SIGNATURE,
    SELECTOR,
    Flaw,
    PublicKey,
    fetch_keys,
    key_name,
    signature_tags,
)

MAX_SIGNATURES = 10  # looked at, from the top: the others are no result at all
CLOCK_SLACK_S = 300  # a signature may have expired so lately, or be made so soon
RESULTS = ("none", "pass", "fail", "policy", "neutral", "temperror", "permerror")
# What a message has once (RFC 5322 3.6, RFC 2045).
_SINGLE = (
    b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"mime-version", b"content-type",
    b"content-transfer-encoding",
)  # fmt: skip
_OCTETS = re.compile("b'([^']*)'")  # as dkimpy shows a value


@dataclass(frozen=True, slots=True)
class DkimResult:
    """One signature. result: one of RESULTS but none (RFC 8601 2.7.1); domain: its d= in A-labels, "" where that cannot
    be read; selector, algorithm and identity (i=) as written; signature: the first octets of b=, as RFC 6008 tells
    signatures of one domain apart; reason: what is wrong, or "".
    """

    result: str
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    identity: str = ""
    signature: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Signature:
    """A field whose tags can be read. limit: its l=; names: of the fields that it signs, in lower case, in order."""

    field: Field
    told: DkimResult
    forms: CanonicalizationPolicy
    names: tuple[bytes, ...]
    body_hash: bytes
    value: bytes
    limit: int | None
    key_name: str
    identity: str  # domain of its i=, or ""

    @property
    def body_form(self) -> str:
        return str(self.forms.body_algorithm.name.decode())


async def verify_dkim(header: Header, blob: Blob, resolver: Resolver) -> tuple[DkimResult, ...]:
    """A result for each signature, from the top; none: there is none. The caller has the deadline."""
    fields = [field for field in header.fields if field.name.lower() == "dkim-signature"][:MAX_SIGNATURES]
    if not fields:
        return ()
    found = [_read(field) for field in fields]
    readable = [each for each in found if isinstance(each, _Signature)]
    keys = await fetch_keys({each.key_name for each in readable}, resolver)
    wanted = [each for each in readable if isinstance(keys[each.key_name], PublicKey)]
    hashes = BodyHashes((each.body_form, limit) for each in wanted for limit in (each.limit, None))
    if wanted:
        await hash_body(hashes, blob, header.end)

    def verified() -> tuple[DkimResult, ...]:
        return tuple(
            each if isinstance(each, DkimResult) else _verified(each, keys[each.key_name], header, hashes)
            for each in found
        )

    return verified() if header.end <= INLINE_LIMIT else await asyncio.to_thread(verified)


def summary(results: tuple[DkimResult, ...]) -> str:
    """One word for all: a message is as good as its best signature."""
    words = {each.result for each in results}
    order = ("pass", "temperror", "policy", "fail", "permerror", "neutral")  # a temperror may yet be a pass
    return next((word for word in order if word in words), "none")


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(field: Field) -> _Signature | DkimResult:
    if len(field.raw) > MAX_SIGNATURE:
        return DkimResult("permerror", reason="signature too long")
    told = DkimResult("permerror")
    try:
        tags = signature_tags(field.value)
        if b"dns/txt" in tags.get(b"q", b"").split(b":"):
            tags[b"q"] = b"dns/txt"  # the others of a list are for others
        told = _told(tags)
        _check_times(tags)
        dkim.validate_signature_fields(tags)
        return _signature(field, tags, told)
    except Flaw as flaw:
        return replace(told, result=flaw.result, reason=str(flaw))
    except dkim.ValidationError as error:
        return replace(told, reason=_plain(_OCTETS.sub(r"\1", str(error))))
    except InvalidTagValueList:
        return replace(told, reason="signature cannot be read")
    except Exception:  # dkimpy's own, on tags that it did not think of
        return replace(told, reason="signature cannot be read")


def _told(tags: dict[bytes, bytes]) -> DkimResult:
    def text(tag: bytes) -> str:
        return _plain(tags.get(tag, b"").decode("utf-8", "replace"))

    try:
        found = parse_domain(tags.get(b"d", b"").decode("utf-8", "replace"))
        domain = "" if found.is_literal else found.ascii
    except ValueError:
        domain = ""
    return DkimResult("permerror", domain, text(b"s"), text(b"a"), text(b"i"), text(b"b")[:8])


def _check_times(tags: dict[bytes, bytes]) -> None:
    """Ours are stricter than dkimpy's, which lets ten hours pass."""
    now = time.time()
    made, ends = (tags.get(tag, b"") for tag in (b"t", b"x"))
    if ends.isdigit() and int(ends[:20]) < now - CLOCK_SLACK_S:
        raise Flaw("fail", "signature expired")
    if made.isdigit() and int(made[:20]) > now + CLOCK_SLACK_S:
        raise Flaw("fail", "signature from the future")


def _signature(field: Field, tags: dict[bytes, bytes], told: DkimResult) -> _Signature:
    if not told.domain:
        raise Flaw("permerror", "d= is no domain")
    selector = tags[b"s"].decode("utf-8", "replace")
    if not SELECTOR.fullmatch(selector) or len(key_name(told.domain, selector)) > MAX_NAME:
        raise Flaw("permerror", "s= is no selector")
    if tags[b"a"] not in (b"rsa-sha256", b"ed25519-sha256"):
        raise Flaw("permerror", f"{told.algorithm} counts no more")  # RFC 8301 3.1
    names = tuple(name.strip().lower() for name in tags[b"h"].split(b":"))
    if b"from" not in names:
        raise Flaw("permerror", "From is not signed")
    try:
        forms = CanonicalizationPolicy.from_c_value(tags.get(b"c"))
    except InvalidCanonicalizationPolicyError:
        raise Flaw("permerror", "unknown c=") from None
    limit = int(tags[b"l"]) if b"l" in tags else None
    value, body_hash = base64.b64decode(tags[b"b"]), base64.b64decode(tags[b"bh"])
    identity = tags.get(b"i", b"").decode("utf-8", "replace").rpartition("@")[2].lower()
    name = key_name(told.domain, selector)
    return _Signature(field, told, forms, names, body_hash, value, limit, name, identity)


# --- checking ---------------------------------------------------------------------------------------------------------


def _verified(signature: _Signature, key: PublicKey | Flaw, header: Header, hashes: BodyHashes) -> DkimResult:
    told = signature.told
    try:
        if isinstance(key, Flaw):
            raise key
        if key.algorithm != told.algorithm:
            raise Flaw("permerror", "key of another kind than the signature")
        if key.is_strict and signature.identity not in ("", told.domain):
            raise Flaw("permerror", "i= is of a subdomain, and the key wants none")
        _check(signature, key, header, hashes)
    except Flaw as flaw:
        is_testing = isinstance(key, PublicKey) and key.is_testing and flaw.result != "policy"
        # RFC 6376 3.6.1: what fails while a domain tests is as if it were unsigned.
        return replace(told, result="neutral" if is_testing else flaw.result, reason=str(flaw))
    return replace(told, result="pass")


def _check(signature: _Signature, key: PublicKey, header: Header, hashes: BodyHashes) -> None:
    form, limit = signature.body_form, signature.limit
    length = hashes.length(form)
    if limit is not None and limit > length:
        raise Flaw("fail", "body shorter than its l=")
    if hashes.digest(form, limit) != signature.body_hash:
        raise Flaw("fail", "body hash did not verify")
    digest = header_digest(signature.forms, header.fields, signature.names, signature.field.raw)
    if not key.verifies(signature.value, digest):
        raise Flaw("fail", "signature did not verify")
    if limit is not None and limit < length:
        raise Flaw("policy", "l= leaves a part of the body unsigned")
    there = Counter(field.name.lower().encode() for field in header.fields)
    for name in _SINGLE:
        if there[name] > signature.names.count(name) > 0:
            # RFC 6376 8.15: readers show the one on top, which anybody may have added.
            raise Flaw("policy", f"a {name.decode().title()} field is not signed")


def _plain(text: str) -> str:
    """A stranger's words for a reason or a trace: printable ASCII, and not many."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:100]
