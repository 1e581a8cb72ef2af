"""Content-Type and Content-Disposition: a word and its parameters (RFC 2045 5.1), with the continuations and charsets
of RFC 2231, as mail programs read them. One pass, bounded; what is broken gives what can be read of it.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.message.header import MAX_DECODED, decode_octets, decode_text

MAX_PARAMETERS = 200
MAX_SEGMENTS = 100  # of one parameter, RFC 2231 3

_COMMENT = re.compile(rb"\((?:[^()\\]|\\.)*+\)")
_PARAMETER = re.compile(
    rb';[\s;]*(?P<name>[^\s=;"]{1,80})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\Z)|(?P<token>[^;]*))', re.DOTALL
)
_SEGMENT = re.compile(r"(?P<name>[^*]+)(?:\*(?P<number>\d{1,3}))?(?P<encoded>\*)?")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameters:
    """word: "text/plain", "attachment", in lower case; values: by lower-case name, all that were given, in order, as
    they decode, control characters and all; is_ambiguous: a parameter was given twice; is_cut: there is more than
    is read.
    """

    word: str
    values: dict[str, tuple[str, ...]]
    is_cut: bool = False

    def first(self, name: str) -> str:
        found = self.values.get(name)
        return found[0] if found else ""

    @property
    def is_ambiguous(self) -> bool:
        return any(len(set(found)) > 1 for found in self.values.values())


def parse_parameters(value: bytes) -> Parameters:
    """value: of the field, folded or not; at most MAX_DECODED octets of it are read."""
    text = value[:MAX_DECODED].replace(b"\r\n", b"")
    if b"(" in text and b'"' not in text:
        text = _COMMENT.sub(b" ", text)
    word, semicolon, rest = text.partition(b";")
    values: dict[str, list[str]] = {}
    segments: dict[str, dict[int, tuple[bytes, bool]]] = {}
    is_cut = len(value) > MAX_DECODED
    for count, match in enumerate(_PARAMETER.finditer(semicolon + rest)):
        if count == MAX_PARAMETERS:
            is_cut = True
            break
        quoted = match["quoted"]
        octets = _ESCAPE.sub(rb"\1", quoted) if quoted is not None else match["token"].strip()
        is_cut |= not _sort_in(match["name"].decode("ascii", "replace").lower(), octets, values, segments)
    for name, found in segments.items():
        values.setdefault(name, []).insert(0, _joined(found))  # RFC 2231 4: the extended one counts more
    shown = word.decode("ascii", "replace").strip().lower()
    frozen = {name: tuple(found) for name, found in values.items()}
    return Parameters(shown.split()[0] if shown.split() else "", frozen, is_cut)


def _sort_in(
    name: str, octets: bytes, values: dict[str, list[str]], segments: dict[str, dict[int, tuple[bytes, bool]]]
) -> bool:
    """False for a segment that is not kept."""
    match = _SEGMENT.fullmatch(name)
    if match is None or (match["number"] is None and match["encoded"] is None):
        values.setdefault(name, []).append(decode_text(octets))
        return "*" not in name
    number = int(match["number"] or 0)
    if number < MAX_SEGMENTS:
        segments.setdefault(match["name"], {}).setdefault(number, (octets, match["encoded"] is not None))
    return number < MAX_SEGMENTS


def _joined(segments: dict[int, tuple[bytes, bool]]) -> str:
    """As far as the numbers go on."""
    charset = ""
    out = []
    for number in range(len(segments)):
        if number not in segments:
            break
        octets, is_encoded = segments[number]
        if number == 0 and is_encoded and octets.count(b"'") >= 2:
            name, _, octets = octets.split(b"'", 2)
            charset = name.decode("ascii", "replace")
        out.append(unquote_to_bytes(octets) if is_encoded else octets)
    if not out:  # numbers that do not begin at 0: what is there
        out = [unquote_to_bytes(octets) for octets, _ in segments.values()]
    return decode_octets(b"".join(out), charset)
