"""ARC sets as they stand in a header (RFC 8617 4): read as a chain, and hashed as a seal covers them."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import dkim
from dkim.util import InvalidTagValueList

from gateway.core.address import parse_domain
from gateway.message.header import Field
from gateway.senderauth.headerhash import relaxed, unsigned
from gateway.senderauth.keys import MAX_SIGNATURE, SELECTOR, Flaw, Tags, key_name, signature_tags

MAX_INSTANCES = 50  # RFC 8617 4.2.1
_RESULTS_FIELD, _MESSAGE, _SEAL = "arc-authentication-results", "arc-message-signature", "arc-seal"
_INSTANCE = re.compile(rb"[1-9][0-9]?")
_RESULTS_INSTANCE = re.compile(rb"\s*i\s*=\s*([0-9]+)\s*;")
_MESSAGE_TAGS = [b"i", b"a", b"b", b"bh", b"d", b"h", b"s"]
_SEAL_TAGS = [b"i", b"cv", b"a", b"b", b"d", b"s"]


@dataclass(frozen=True, slots=True)
class ArcSet:
    """What one handler added."""

    results: Field
    message: Field
    message_tags: Tags
    seal: Field
    seal_tags: Tags


def read_sets(fields: Iterable[Field]) -> list[ArcSet]:
    """In order, whole, and each saying of the one before what it has to. Raises Flaw."""
    found: dict[int, dict[str, list[tuple[Field, Tags]]]] = defaultdict(lambda: defaultdict(list))
    for field in fields:
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
        sets.append(ArcSet(results, *message, *seal))
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
        tag_domain(tags)
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


def tag_domain(tags: Tags) -> str:
    """Raises ValueError."""
    domain = parse_domain(tags[b"d"].decode("utf-8"))
    if domain.is_literal:
        raise ValueError("an address")
    return domain.ascii


def tag_key_name(tags: Tags) -> str:
    return key_name(tag_domain(tags), tags[b"s"].decode("ascii"))


class ChainHash:
    """What the seals of a chain are over (RFC 8617 5.1.1): all sets up to its own, in order, itself last."""

    def __init__(self) -> None:
        self._before = hashlib.sha256()

    def add(self, results: bytes, message: bytes, seal: bytes) -> bytes:
        """SHA-256 for the seal of the next set; all three are raw fields, the value of its b= whatever it is."""
        self._before.update(relaxed(results) + relaxed(message))
        own = self._before.copy()
        own.update(relaxed(unsigned(seal)).removesuffix(b"\r\n"))
        self._before.update(relaxed(seal))
        return own.digest()
