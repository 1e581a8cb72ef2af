"""ARC sets made (RFC 8617 5.1): what was found out of a message here, sealed for those that it is handed on to.

Tags stand in the order of the alphabet and a signature on one line, as the public signing cases have them.
"""

import base64
import re
from collections.abc import Sequence

from gateway.message.header import Field
from gateway.senderauth.arcset import MAX_INSTANCES, ArcSet, ChainHash, read_sets
from gateway.senderauth.headerhash import header_digest
from gateway.senderauth.keys import Flaw
from gateway.senderauth.signing import FORMS, SigningKey, folded, signature_value, signed_names

_DKIM = b"dkim-signature"
_SEAL = "arc-seal"
_INSTANCE = re.compile(rb"(?:^|;)\s*i\s*=\s*([0-9]{1,3})\s*(?:;|$)")
_FAILED = re.compile(rb"(?:^|;)\s*cv\s*=\s*fail\s*(?:;|$)", re.IGNORECASE)


def arc_fields(
    key: SigningKey,
    fields: Sequence[Field],
    body_hash: bytes,
    findings: str,
    result: str,
    now: int,
    names: Sequence[bytes] = (),
) -> bytes:
    """The three fields with their line ends, to be put on top of `fields`; none where a chain has ended or nobody knows
    how it stands.

    key: an RSA one; body_hash: SHA-256 of the body in relaxed form; findings: the value of our Authentication-Results;
    result: of the chain in `fields`; names: to sign, in lower case, none: those of a DKIM signature, and those too.
    """
    place = _place(fields, result)
    if place is None:
        return b""
    before, instance, validation = place
    results = f"ARC-Authentication-Results: i={instance}; {findings}\r\n".encode()
    names = names or [*signed_names(fields), *[_DKIM for field in fields if field.name.lower().encode() == _DKIM]]
    tags = {
        "a": "rsa-sha256", "b": "", "bh": base64.b64encode(body_hash).decode("ascii"), "c": "relaxed/relaxed",
        "d": key.domain, "h": ":".join(name.decode("ascii") for name in names), "i": str(instance),
        "s": key.selector, "t": str(now),
    }  # fmt: skip
    message = _field("ARC-Message-Signature", tags)
    message = _field(
        "ARC-Message-Signature", {**tags, "b": signature_value(key, header_digest(FORMS, fields, names, message))}
    )
    chain = ChainHash()
    for each in before:
        chain.add(each.results.raw, each.message.raw, each.seal.raw)
    tags = {
        "a": "rsa-sha256", "b": "", "cv": validation, "d": key.domain, "i": str(instance), "s": key.selector,
        "t": str(now),
    }  # fmt: skip
    digest = chain.add(results, message, _field("ARC-Seal", tags))
    return _field("ARC-Seal", {**tags, "b": signature_value(key, digest)}) + message + results


def _place(fields: Sequence[Field], result: str) -> tuple[list[ArcSet], int, str] | None:
    """The sets that a new seal covers beside its own, its instance and its cv=."""
    if result in ("none", "pass"):
        try:
            sets = read_sets(fields)
        except Flaw:
            return None  # a rule of ours has put something in between
        return (sets, len(sets) + 1, "pass" if sets else "none") if len(sets) < MAX_INSTANCES else None
    if result != "fail":
        return None
    # RFC 8617 5.1.2: who finds the chain broken says so once, and covers nothing but that.
    seals = [field.value for field in fields if field.name.lower() == _SEAL]
    found = [int(match[1]) for value in seals if (match := _INSTANCE.search(value))]
    if not found or max(found) >= MAX_INSTANCES or any(map(_FAILED.search, seals)):
        return None
    return [], max(found) + 1, "fail"


def _field(name: str, tags: dict[str, str]) -> bytes:
    """Folded with spaces: dkimpy looks for an ` i=`."""
    text = folded([f"{tag}={value}" for tag, value in tags.items()]).replace("\t", " ")
    return f"{name}: {text}\r\n".encode("ascii")
