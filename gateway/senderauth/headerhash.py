"""What a signature of DKIM or ARC signs (RFC 6376 3.7): the hash of chosen fields, then itself without its value."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dkim.canonicalization import CanonicalizationPolicy

from gateway.message.header import Field


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
    pairs = [(name, value + b"\r\n") for name, value in map(_parts, chosen)]
    name, value = _parts(signature)
    canonical = forms.canonicalize_headers([*pairs, (name, without_value(value))])
    text = b"".join(name + b":" + value for name, value in canonical)
    return hashlib.sha256(text.removesuffix(b"\r\n")).digest()


def _parts(raw: bytes) -> tuple[bytes, bytes]:
    """Name and value with all blanks as they came, without the last line end."""
    name, _, value = raw.partition(b":")
    return name, value.removesuffix(b"\r\n")


def without_value(text: bytes) -> bytes:
    """The signature's field with an empty b=, the blanks about its value gone too."""
    pieces = text.split(b";")
    for number, piece in enumerate(pieces):
        key, equals, _ = piece.partition(b"=")
        if key.strip() == b"b":
            pieces[number] = key + equals
    return b";".join(pieces)
