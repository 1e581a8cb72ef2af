"""The header as a byte-exact list of fields (RFC 5322 2.2), and what rules ask of it.

Nothing is ever re-serialised from here: fields are slices of the octets received. All work is bounded by MAX_HEADER and
linear in it. Broken headers are parsed as far as they go and called malformed, never an error.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.header import decode_header
from functools import lru_cache

MAX_HEADER = 256 * 1024  # octets; a longer block counts as malformed and is read up to here
MAX_DECODED = 4096  # octets of one field that are decoded for rules

# field = field-name ":" unstructured CRLF, with folding; obs-syntax allows blanks before the colon.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_WORD = re.compile(r"=\?[!->@-~]+\?[bBqQ]\?[!->@-~]*\?=")
_BETWEEN = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
_SAFE_CHARSETS = re.compile(
    r"(?:us-)?ascii|utf-?8|utf-?16(?:-?[lb]e)?|iso-?8859-\d+|windows-125\d|cp125\d|koi8-[ru]|gb(?:2312|k|18030)|big5"
    r"|euc-(?:jp|kr)|iso-2022-(?:jp|kr)|shift_?jis|ks_c_5601-1987",
    re.IGNORECASE,
)


# Loaded now: after the drop of privileges the codecs' files may be out of reach.
for _name in ("raw-unicode-escape", "latin-1", "utf-8", "idna", "cp1252", "cp437"):
    codecs.lookup(_name)


def load_charsets() -> None:
    """Those that mail is written in, for the same reason: before the drop."""
    numbered = [f"iso8859-{number}" for number in range(1, 17) if number != 12]
    pages = [f"cp{number}" for number in range(1250, 1259)]
    asian = ["gb2312", "gbk", "gb18030", "big5", "euc-jp", "euc-kr", "iso-2022-jp", "iso-2022-kr", "shift_jis"]
    for name in (*numbered, *pages, *asian, "koi8-r", "koi8-u", "utf-16", "utf-16-le", "utf-16-be", "ascii"):
        codecs.lookup(name)


@dataclass(frozen=True, slots=True)
class Field:
    """name as written; raw: the whole field with its last line end; value: after the colon, still folded."""

    name: str
    value: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """end: offset of the first octet after the blank line; without one, of what is not read as header any more."""

    fields: tuple[Field, ...]
    end: int
    is_malformed: bool
    _by_name: dict[str, list[Field]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for each in self.fields:
            self._by_name.setdefault(each.name.lower(), []).append(each)

    def all(self, name: str) -> Sequence[Field]:
        """In their order; name: in any case."""
        return self._by_name.get(name.lower(), ())

    def first(self, name: str) -> Field | None:
        found = self._by_name.get(name.lower())
        return None if found is None else found[0]

    def count(self, name: str) -> int:
        return len(self.all(name))

    def text(self, name: str) -> str | None:
        """The first such field, unfolded and decoded, or None."""
        found = self.first(name)
        return None if found is None else decode_text(found.value)


def parse_header(octets: bytes, limit: int = MAX_HEADER) -> Header:
    """octets: the start of a message, at least its header or so much of it."""
    if octets[:2] == b"\r\n":
        return Header((), 2, True)
    blank = octets.find(b"\r\n\r\n", 0, limit)
    is_malformed = blank < 0
    block = octets[: blank + 2] if blank >= 0 else octets[:limit]
    fields: list[Field] = []
    at = 0
    while at < len(block):
        match = _FIELD.match(block, at)
        if match is None:
            # RFC 5322 knows no such line. What follows is body to some readers, header to others.
            is_malformed = True
            newline = block.find(b"\n", at)
            at = len(block) if newline < 0 else newline + 1
            continue
        fields.append(Field(match[1].decode("ascii"), match[2].rstrip(b"\r"), match[0]))
        at = match.end()
    end = blank + 4 if blank >= 0 else min(len(octets), limit)
    return Header(tuple(fields), end, is_malformed)


def decode_text(value: bytes) -> str:
    """Unfold and decode RFC 2047 words; what cannot be decoded stays as written. Bounded by MAX_DECODED."""
    text = _guess(value[:MAX_DECODED].replace(b"\r\n", b"").replace(b"\n", b"")).strip()
    if "=?" not in text:
        return text
    # RFC 2047 6.2: blanks between encoded words are not shown.
    return _WORD.sub(_decode_word, _BETWEEN.sub("", text))


def _decode_word(match: re.Match[str]) -> str:
    try:
        ((octets, charset),) = decode_header(match[0])
    except (HeaderParseError, ValueError, LookupError):
        return match[0]
    if isinstance(octets, str):
        return octets
    return _guess(octets) if charset is None else decode_octets(octets, charset)


def decode_octets(octets: bytes, charset: str) -> str:
    # Python knows "charsets" that decompress or decode base64; only real ones get in.
    if not _SAFE_CHARSETS.fullmatch(charset):
        return _guess(octets)
    try:
        return codecs.decode(octets, charset, "replace")
    except (LookupError, ValueError):
        return _guess(octets)


def _guess(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return octets.decode("utf-8", "ignore")  # cut in mid-letter by a bound
        return octets.decode("latin-1")


def address_of(value: bytes) -> str | None:
    """The addr-spec of a From or Sender field's first address, lower-case domain; None when there is none.

    Comments, quoted display names and groups are skipped in one pass, without recursion.
    """
    return _first_address(value[:MAX_DECODED])


@lru_cache(maxsize=128)  # several facts of a message ask for the same field
def _first_address(value: bytes) -> str | None:
    text = _without_comments(_guess(value.replace(b"\r\n", b"")))
    for part in text.split(","):
        candidate = part.partition("<")[2].partition(">")[0] if "<" in part else part.rpartition(":")[2].rstrip("; ")
        local, at, domain = candidate.strip().rpartition("@")
        if at and local and domain and " " not in domain:
            return f"{local}@{domain.lower()}"
    return None


def mailboxes(value: bytes) -> tuple[str, ...] | None:
    """The addr-specs of a mailbox-list (RFC 5322 3.4), as written; None for anything else: groups, more octets than
    MAX_DECODED, and what only a lenient reader would take for an address.
    """
    if len(value) > MAX_DECODED:
        return None
    text = _COMMENT_FREE.sub(_skip_comment, _guess(value.replace(b"\r\n", b"")))
    if "\0" in text:
        return None
    found = []
    at = 0
    while at <= len(text):
        match = _MAILBOX.match(text, at)
        if match is None:
            return None
        found.append(match["bare"] or match["angle"])
        at = match.end()
        if at == len(text):
            return tuple(found)
        if text[at] != ",":
            return None
        at += 1
    return None


def _skip_comment(match: re.Match[str]) -> str:
    """A comment reads as a blank, a quoted string as it is; a bracket left over as NUL, which nothing takes."""
    if match[0].startswith('"'):
        return match[0]
    return " " if match[0].startswith("(") and match[0].endswith(")") else "\0"


_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]"
_QUOTED_STRING = r'"(?:[^"\\]|\\.)*+"'
_ADDR_SPEC = rf"(?:{_ATEXT}++(?:\.{_ATEXT}++)*+|{_QUOTED_STRING})@(?:{_ATEXT}++(?:\.{_ATEXT}++)*+|\[[^\[\]\\\s]*+\])"
# Comments do not nest here: a nested one leaves a bracket over, and is nobody's.
_COMMENT_FREE = re.compile(rf"{_QUOTED_STRING}|\((?:[^()\\]|\\.)*+\)|[()]")
_PHRASE = rf"(?:(?:{_ATEXT}|[.])++|{_QUOTED_STRING}|\s++)*+"
_MAILBOX = re.compile(rf"\s*+(?:(?P<bare>{_ADDR_SPEC})|{_PHRASE}<\s*+(?P<angle>{_ADDR_SPEC})\s*+>)\s*+")


def _without_comments(text: str) -> str:
    out: list[str] = []
    depth, is_quoted = 0, False
    chars = iter(text)
    for char in chars:
        if char == "\\":
            following = next(chars, "")
            if depth == 0 and is_quoted:
                out.append(following if following not in "<>@(" else "")
            continue
        if is_quoted:
            is_quoted = char != '"'
            if char not in '<>"@,':
                out.append(char)
        elif char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif depth == 0:
            if char == '"':
                is_quoted = True
            else:
                out.append(char)
    return "".join(out)
