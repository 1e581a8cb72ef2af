"""Content-Type and Content-Disposition: a word and its parameters (RFC 2045 5.1), with the continuations and charsets
of RFC 2231, as mail programs read them. One pass, bounded; what is broken gives what can be read of it.

Where programs differ in their reading, all readings are given, or it is said that there are others.
"""

import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from gateway.message.header import MAX_DECODED, decode_octets, decode_text
from gateway.message.transfer import decode_base64

MAX_PARAMETERS = 200
MAX_SEGMENTS = 100  # of one parameter, RFC 2231 3
SHORT = 80  # octets of a value that may come again
FILE_NAMES = ("filename", "name")

_FOLD = re.compile(rb"\r?\n[ \t]?|\t")
_QUOTED_OR_COMMENT = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)|\((?:[^()\\]|\\.)*+\)', re.DOTALL)
_PARAMETER = re.compile(
    rb'[\s;]*+(?P<name>[^\s=;"]{1,80})\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)(?:"|\Z)(?P<behind>[^;]*+)|(?P<token>[^;]*+))',
    re.DOTALL,
)
_SLASH = re.compile(r"\s*/\s*")
_BETWEEN = re.compile(rb"[\s;]*+")
_SEGMENT = re.compile(r"(?P<name>[^*]+)(?:\*(?P<number>\d{1,3}))?(?P<encoded>\*)?")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_PLAIN_WORD = re.compile(rb"\s*+[!#$%&'*+.^_`{|}~0-9A-Za-z-]++(?:/[!#$%&'*+.^_`{|}~0-9A-Za-z-]++)?\s*+")
# RFC 2046 5.1.1, but a blank only within quotes.
_PLAIN_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]*+")
_ENCODED_WORD = re.compile(rb"=\?[^?]*\?[bBqQ]\?")
_LOOSE_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?]{0,2000})(?:\?=|\Z)")


@dataclass(frozen=True, slots=True)
class Parameters:
    """word: "text/plain", "attachment", in lower case; values: by lower-case name, all readings of all that were given,
    as they decode, control characters and all, a boundary undecoded.

    is_cut: there is more than is read; is_odd: some read another word, or another boundary.
    """

    word: str
    values: dict[str, tuple[str, ...]]
    is_cut: bool = False
    is_odd: bool = False
    repeated: frozenset[str] = frozenset()  # names given more than once

    def first(self, name: str) -> str:
        found = self.values.get(name)
        return found[0] if found else ""

    @property
    def is_ambiguous(self) -> bool:
        return any(self._differs(name) for name in self.values)

    @property
    def is_ambiguous_but_for_names(self) -> bool:
        """File names are often given twice, for old readers and new."""
        return any(self._differs(name) for name in self.values if name not in FILE_NAMES)

    def _differs(self, name: str) -> bool:
        return len(set(self.values[name])) > 1 or name in self.repeated


class _Reader:
    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.segments: dict[str, dict[int, list[tuple[bytes, bool]]]] = {}
        self.repeated: set[str] = set()
        self.is_cut = False
        self.is_odd = False

    def take(self, match: re.Match[bytes]) -> None:
        name = match["name"].decode("ascii", "replace").lower()
        quoted = match["quoted"]
        octets = _ESCAPE.sub(rb"\1", quoted) if quoted is not None else match["token"].strip()
        base = name.partition("*")[0]
        if base == "boundary":
            self.is_odd |= _is_odd_boundary(match)
        found = _SEGMENT.fullmatch(name)
        if found is None or (found["number"] is None and found["encoded"] is None):
            self.is_cut |= "*" in name
            text = octets.decode("utf-8", "surrogateescape") if base == "boundary" else _decoded(octets)
            self.values.setdefault(name, []).append(text)
            return
        number = int(found["number"] or 0)
        if number >= MAX_SEGMENTS:
            self.is_cut = True
            return
        each = self.segments.setdefault(found["name"], {}).setdefault(number, [])
        self.is_cut |= len(each) >= MAX_SEGMENTS
        if len(each) < MAX_SEGMENTS:
            each.append((octets, found["encoded"] is not None))

    def finished(self) -> dict[str, tuple[str, ...]]:
        for name, segments in self.segments.items():
            found = dict.fromkeys((_joined(segments, 0, stops=True), _joined(segments, 0, stops=False)))
            if any(len(each) > 1 for each in segments.values()):
                self.repeated.add(name)
                found |= dict.fromkeys((_joined(segments, -1, stops=False),))
            self.values[name] = [*found, *self.values.get(name, [])]  # RFC 2231 4: the extended one counts more
        return {name: tuple(each) for name, each in self.values.items()}


def parse_parameters(value: bytes) -> Parameters:
    """value: of the field, folded or not; at most MAX_DECODED octets of it are read."""
    return _parse_again(value) if len(value) <= SHORT else _parse(value)


def _parse(value: bytes) -> Parameters:
    text = _FOLD.sub(b" ", value[:MAX_DECODED])
    if b"(" in text:
        text = _QUOTED_OR_COMMENT.sub(lambda match: match[0] if match[0].startswith(b'"') else b" ", text)
    word, semicolon, _ = text.partition(b";")
    reader = _Reader()
    at = len(word) + len(semicolon)
    count = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            start = _BETWEEN.match(text, at)
            following = text.find(b";", max(at + 1, start.end() if start else 0))
            at = len(text) if following < 0 else following
            continue
        if count == MAX_PARAMETERS:
            reader.is_cut = True
            break
        count += 1
        reader.take(match)
        at = match.end()
    is_plain = _PLAIN_WORD.fullmatch(word) is not None and b"(" not in value[: len(word)]
    values = reader.finished()
    is_cut = reader.is_cut or len(value) > MAX_DECODED
    return Parameters(_word(word), values, is_cut, reader.is_odd or not is_plain, frozenset(reader.repeated))


_parse_again = lru_cache(maxsize=256)(_parse)  # most messages say one of a few things


def _word(octets: bytes) -> str:
    text = _SLASH.sub("/", octets.decode("ascii", "replace").replace('"', " ").strip().lower(), count=1)
    words = text.split()
    return words[0] if words else ""


def _is_odd_boundary(match: re.Match[bytes]) -> bool:
    quoted = match["quoted"]
    if quoted is None:
        token = match["token"].strip()
        return not _PLAIN_BOUNDARY.fullmatch(token) or any(octet in token for octet in b' ,()"')
    is_plain = _PLAIN_BOUNDARY.fullmatch(quoted) is not None and not quoted.startswith(b" ")
    is_plain = is_plain and _ENCODED_WORD.search(quoted) is None
    return not is_plain or bool((match["behind"] or b"").strip())


def _decoded(octets: bytes) -> str:
    """A name's encoded words are decoded even where RFC 2047 5 forbids them, and broken ones as far as they go."""
    text = decode_text(octets)
    return _LOOSE_WORD.sub(_loose_word, text) if "=?" in text else text


def _loose_word(match: re.Match[str]) -> str:
    raw = match[3].encode("ascii", "replace")
    octets = decode_base64(raw) if match[2] in "bB" else binascii.a2b_qp(raw, header=True)
    return decode_octets(octets, match[1])


def _joined(segments: dict[int, list[tuple[bytes, bool]]], which: int, *, stops: bool) -> str:
    """In order; stops: at a number that is missing. which: of those with one number."""
    charset = ""
    out: list[bytes] = []
    for place, number in enumerate(sorted(segments)):
        if stops and place != number and out:
            break
        octets, is_encoded = segments[number][which]
        if place == 0 and is_encoded and octets.count(b"'") >= 2:
            name, _, octets = octets.split(b"'", 2)
            charset = name.decode("ascii", "replace")
        out.append(unquote_to_bytes(octets) if is_encoded else octets)
    return decode_octets(b"".join(out), charset)
