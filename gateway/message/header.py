"""The header as a byte-exact list of fields (RFC 5322 2.2), and what rules ask of it.

Nothing is ever re-serialised from here: fields are slices of the octets received. All work is bounded by MAX_HEADER and
linear in it. Broken headers are parsed as far as they go and called malformed, never an error.
"""

import codecs
import re
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header

MAX_HEADER = 256 * 1024  # octets; a longer block counts as malformed and is read up to here
MAX_DECODED = 4096  # octets of one field that are decoded for rules

# field = field-name ":" unstructured CRLF, with folding; obs-syntax allows blanks before the colon.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_WORD = re.compile(r"=\?[!->@-~]+\?[bBqQ]\?[!->@-~]*\?=")
_BETWEEN = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
_SAFE_CHARSETS = re.compile(
    r"(?:us-)?ascii|utf-?8|iso-?8859-\d+|windows-125\d|cp125\d|koi8-[ru]|gb(?:2312|k|18030)|big5"
    r"|euc-(?:jp|kr)|iso-2022-(?:jp|kr)|shift_?jis|ks_c_5601-1987",
    re.IGNORECASE,
)


# Loaded now: after the drop of privileges the codecs' files may be out of reach.
for _name in ("raw-unicode-escape", "latin-1", "utf-8", "idna", "cp1252"):
    codecs.lookup(_name)


@dataclass(frozen=True, slots=True)
class Field:
    """name as written; raw: the whole field with its last line end; value: after the colon, still folded."""

    name: str
    value: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """end: offset of the first octet after the blank line, or the message's size when there is none."""

    fields: tuple[Field, ...]
    end: int
    is_malformed: bool

    def first(self, name: str) -> Field | None:
        wanted = name.lower()
        return next((field for field in self.fields if field.name.lower() == wanted), None)

    def count(self, name: str) -> int:
        wanted = name.lower()
        return sum(field.name.lower() == wanted for field in self.fields)

    def text(self, name: str) -> str | None:
        """The first such field, unfolded and decoded, or None."""
        field = self.first(name)
        return None if field is None else decode_text(field.value)


def parse_header(octets: bytes) -> Header:
    """octets: the start of a message, at least its header or MAX_HEADER of it."""
    if octets[:2] == b"\r\n":
        return Header((), 2, True)
    blank = octets.find(b"\r\n\r\n", 0, MAX_HEADER)
    is_malformed = blank < 0
    block = octets[: blank + 2] if blank >= 0 else octets[:MAX_HEADER]
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
    return Header(tuple(fields), blank + 4 if blank >= 0 else len(octets), is_malformed)


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
    return _guess(octets) if charset is None else _decode(octets, charset)


def _decode(octets: bytes, charset: str) -> str:
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
    """The addr-spec of a From or Sender field's first address, lower-case domain; None when there is none."""
    return next(iter(addresses_of(value)), None)


def addresses_of(value: bytes) -> tuple[str, ...]:
    """All of them, in order. Comments, quoted display names and groups are skipped in one pass, without recursion."""
    found: list[str] = []
    text = _without_comments(_guess(value[:MAX_DECODED].replace(b"\r\n", b"")))
    for part in text.split(","):
        candidate = part.partition("<")[2].partition(">")[0] if "<" in part else part.rpartition(":")[2].rstrip("; ")
        local, at, domain = candidate.strip().rpartition("@")
        if at and local and domain and " " not in domain:
            found.append(f"{local}@{domain.lower()}")
    return tuple(found)


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
