"""What a signature of DKIM or ARC signs (RFC 6376 3.7): the hash of chosen fields, then itself without its value."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dkim.canonicalization import CanonicalizationPolicy

from gateway.message.header import Field

_LINE_END, _BLANKS = re.compile(rb"\r?\n"), re.compile(rb"[ \t]+")


def header_digest(
    forms: CanonicalizationPolicy, fields: Iterable[Field], names: Sequence[bytes], signature: bytes
) -> bytes:
    """SHA-256. names: in lower case, each name's fields from the bottom up; one too many stands for nothing. signature:
    the raw field, its value of b= whatever it is.
    """
    waiting: dict[bytes, list[bytes]] = defaultdict(list)
    for field in fields:
        waiting[field.name.lower().encode()].append(field.raw)
    chosen = [raws.pop() for name in names if (raws := waiting.get(name))]
    form = relaxed if forms.header_algorithm.name == b"relaxed" else _simple
    text = b"".join(map(form, [*chosen, unsigned(signature)]))
    return hashlib.sha256(text.removesuffix(b"\r\n")).digest()


def relaxed(raw: bytes) -> bytes:
    """RFC 6376 3.4.2: blanks are spaces and tabs, where dkimpy takes off whatever Python calls so."""
    name, _, value = raw.partition(b":")
    value = _BLANKS.sub(b" ", _LINE_END.sub(b"", value)).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value + b"\r\n"


def _simple(raw: bytes) -> bytes:
    return raw.removesuffix(b"\r\n") + b"\r\n"


def unsigned(signature: bytes) -> bytes:
    """The raw field with an empty b=, the blanks about its value gone too."""
    name, _, value = signature.partition(b":")
    pieces = value.removesuffix(b"\r\n").split(b";")
    for number, piece in enumerate(pieces):
        key, equals, _ = piece.partition(b"=")
        if key.strip() == b"b":
            pieces[number] = key + equals
    return name + b":" + b";".join(pieces)
