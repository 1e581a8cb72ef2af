"""Address fields as ENVELOPE has them (RFC 3501 7.4.2): read as leniently as people write them, in one pass.

Nothing is decoded: names are given as they stand in the message, without quotes and comments.
"""

import re

from gateway.imap.wire import nstring, string

MAX_ADDRESSES = 1000
MAX_OCTETS = 64 * 1024  # of one field

# A quoted string, a comment (one level), an address in angles, a separator, or words.
_TOKEN = re.compile(
    rb'"(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\Z)|\((?P<comment>(?:[^()\\]|\\.)*+)(?:\)|\Z)|<(?P<angle>[^<>]*+)(?:>|\Z)'
    rb"|(?P<mark>[,;:])|(?P<blank>\s++)|(?P<word>[^\s\"(),;:<>]++)|(?P<other>.)",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_BLANKS = re.compile(rb"[\r\n\t ]+")


def addresses(value: bytes) -> bytes:
    """An address list in wire form, NIL for none."""
    found = b"".join(_addresses(value[:MAX_OCTETS]))
    return b"(" + found + b")" if found else b"NIL"


def _addresses(value: bytes) -> list[bytes]:
    out: list[bytes] = []
    one = _One()
    in_group = False
    for match in _TOKEN.finditer(value):
        if len(out) >= MAX_ADDRESSES:
            break
        kind = match.lastgroup or ""  # exactly one of them has matched
        octets = match[kind]
        if kind != "mark":
            one.take(kind, octets)
        elif octets == b":" and not in_group and not one.has_address and not one.is_empty:
            out.append(b"(NIL NIL " + string(one.phrase()) + b" NIL)")
            one, in_group = _One(), True
        elif octets == b":":
            one.add(b":")
        else:
            out += one.written()
            one = _One()
            if octets == b";" and in_group:
                out.append(b"(NIL NIL NIL NIL)")
                in_group = False
    out += one.written()
    if in_group:
        out.append(b"(NIL NIL NIL NIL)")
    return out


class _One:
    """One address as it is read."""

    def __init__(self) -> None:
        self._words: list[bytes] = []
        self._is_apart = True  # the next word does not belong to the last
        self._angle: bytes | None = None
        self._comment = b""
        self._has_at = False

    @property
    def has_address(self) -> bool:
        return self._angle is not None or self._has_at

    @property
    def is_empty(self) -> bool:
        return not self._words and self._angle is None

    def take(self, kind: str, octets: bytes) -> None:
        match kind:
            case "blank":
                self._is_apart = True
            case "word":
                self.add(octets)
            case "quoted":
                self.add(_ESCAPED.sub(rb"\1", octets))
            case "angle":
                self._angle = octets
            case "comment":
                self._comment = self._comment or _ESCAPED.sub(rb"\1", octets)

    def add(self, octets: bytes) -> None:
        self._has_at = self._has_at or b"@" in octets
        if self._is_apart or not self._words:
            self._words.append(octets)
        else:
            self._words[-1] += octets
        self._is_apart = False

    def phrase(self) -> bytes:
        return _BLANKS.sub(b" ", b" ".join(self._words)).strip()

    def written(self) -> list[bytes]:
        if self._angle is not None:
            name, route, address = self.phrase() or self._comment, b"", self._angle.strip()
            if address.startswith(b"@") and b":" in address:
                route, _, address = address.partition(b":")
        else:
            name, route, address = self._comment, b"", b"".join(self._words)
        if not address and not name:
            return []
        local, at, host = address.rpartition(b"@")
        if not at:
            local, host = address, b""
        local = _ESCAPED.sub(rb"\1", local[1:-1]) if local[:1] == local[-1:] == b'"' and len(local) > 1 else local
        fields = (name or None, route or None, local, host)
        return [b"(" + b" ".join(nstring(None if each is None else _flat(each)) for each in fields) + b")"]


def _flat(octets: bytes) -> bytes:
    return _BLANKS.sub(b" ", octets).strip()
