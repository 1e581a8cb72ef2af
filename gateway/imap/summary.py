"""What is worked out of a message once, at delivery: ENVELOPE, BODYSTRUCTURE and where its parts lie.

In wire form (RFC 3501 7.4.2), so that FETCH only copies. No message raises here: parts that cannot be told apart are
one, fields that are not there are NIL.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gateway.imap.addresses import addresses
from gateway.imap.wire import nstring, string
from gateway.message.header import Header, parse_header
from gateway.message.mime import Part, walk

MAX_VALUE = 16 * 1024  # octets of a field that are told
MAX_PARAMETERS = 50

_FOLD = re.compile(rb"\r?\n")
_BLANKS = re.compile(rb"[\r\n\t ]+")
_PARAMETER = re.compile(rb';\s*+([^\s=;"()]{1,80})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)(?:"|\Z)|([^\s;()]*+))', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN = re.compile(rb"\s*+([!#$%&'*+.^_`{|}~0-9A-Za-z-]+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies in the octets. number: (1, 2) for part 1.2; kind: of KINDS."""

    number: tuple[int, ...]
    kind: str
    header: int
    body: int
    end: int


MULTIPART, MESSAGE, LEAF = "multipart", "message", "leaf"


@dataclass(frozen=True, slots=True)
class Summary:
    """header: the octets of the header, with the blank line; places: of all parts that have a number."""

    envelope: bytes
    structure: bytes
    body: bytes
    header: bytes
    places: tuple[Place, ...]


def summarise(octets: bytes) -> Summary:
    """octets: of a whole message, with CRLF."""
    parts = walk(octets).parts
    tree = _tree(parts)
    header = parts[0].header
    built = _Builder(octets)
    structure, body = built.both(tree, (), is_root=True)
    return Summary(envelope_of(header), structure, body, octets[: parts[0].start], tuple(built.places))


def places_to_json(places: Sequence[Place]) -> bytes:
    rows = [[list(each.number), each.kind, each.header, each.body, each.end] for each in places]
    return json.dumps(rows, separators=(",", ":")).encode()


def places_from_json(octets: bytes) -> tuple[Place, ...]:
    return tuple(Place(tuple(number), kind, *rest) for number, kind, *rest in json.loads(octets))


# --- ENVELOPE -----------------------------------------------------------------------------------------------------


def envelope_of(header: Header) -> bytes:
    """Sender and Reply-To are the author's where they are absent or empty."""
    author = _addresses(header, "From")
    sender, reply_to = (_addresses(header, name) for name in ("Sender", "Reply-To"))
    fields = [
        _field(header, "Date"),
        _field(header, "Subject"),
        author,
        author if sender == b"NIL" else sender,
        author if reply_to == b"NIL" else reply_to,
        *(_addresses(header, name) for name in ("To", "Cc", "Bcc")),
        _field(header, "In-Reply-To"),
        _field(header, "Message-ID"),
    ]
    return b"(" + b" ".join(fields) + b")"


def _value(header: Header, name: str) -> bytes | None:
    found = header.first(name)
    if found is None:
        return None
    value = found.value[:MAX_VALUE]
    return (_FOLD.sub(b"", value) if b"\n" in value else value).strip()


def _field(header: Header, name: str) -> bytes:
    return nstring(_value(header, name))


def _addresses(header: Header, name: str) -> bytes:
    values = [field.value for field in header.all(name)]
    return addresses(b", ".join(values)) if values else b"NIL"


# --- BODYSTRUCTURE ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    part: Part
    children: list["_Node"]


def _tree(parts: Sequence[Part]) -> _Node:
    """parts: in the order of the message, each with its depth."""
    root = _Node(parts[0], [])
    open_nodes = [root]
    for part in parts[1:]:
        del open_nodes[part.depth :]
        node = _Node(part, [])
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root


class _Builder:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.places: list[Place] = []

    def both(self, node: _Node, number: tuple[int, ...], *, is_root: bool = False) -> tuple[bytes, bytes]:
        """BODYSTRUCTURE and BODY. number: of the part, or of what holds it where it is a message's own body."""
        part = node.part
        if node.children and not part.is_message:
            if not is_root:
                self._place(part, number, MULTIPART)
            told = [self.both(child, (*number, at)) for at, child in enumerate(node.children, 1)]
            whole = b"".join(each for each, _ in told)
            subtype = _media_type(part)[1]
            tail = b" ".join((parameters_of(_raw(part, "Content-Type")), *_extension(part)))
            head = b"".join(each for _, each in told)
            return b"(" + whole + b" " + subtype + b" " + tail + b")", b"(" + head + b" " + subtype + b")"
        if is_root:
            number = (*number, 1)
        self._place(part, number, MESSAGE if part.is_message else LEAF)
        basic = self._basic(node, number)
        md5 = nstring(_raw(part, "Content-MD5"))
        return (
            b"(" + basic[0] + b" " + b" ".join((md5, *_extension(part))) + b")",
            b"(" + basic[1] + b")",
        )

    def _place(self, part: Part, number: tuple[int, ...], kind: str) -> None:
        self.places.append(Place(number, kind, part.start - part.header.end, part.start, part.end))

    def _basic(self, node: _Node, number: tuple[int, ...]) -> tuple[bytes, bytes]:
        """Up to what both forms have."""
        part = node.part
        main, subtype = _media_type(part)
        size = part.end - part.start
        fields = [
            main,
            subtype,
            parameters_of(_raw(part, "Content-Type")),
            nstring(_raw(part, "Content-ID")),
            nstring(_raw(part, "Content-Description")),
            _encoding(part),
            b"%d" % size,
        ]
        if part.is_message and node.children:
            inner = node.children[0]
            header = parse_header(self._octets[part.start : part.end])
            whole, short = self._embedded(inner, number)
            lines = b"%d" % self._lines(part)
            told = (b" ".join((*fields, envelope_of(header), each, lines)) for each in (whole, short))
            first, second = told
            return first, second
        if main == b'"TEXT"':
            fields.append(b"%d" % self._lines(part))
        elif part.is_message:  # one that is not looked into: RFC 3501 wants its parts all the same
            fields[0:2] = [b'"APPLICATION"', b'"OCTET-STREAM"']
        found = b" ".join(fields)
        return found, found

    def _embedded(self, inner: _Node, number: tuple[int, ...]) -> tuple[bytes, bytes]:
        """RFC 3501 6.4.5: the parts of an embedded multipart count from the message's own number."""
        is_multipart = bool(inner.children) and not inner.part.is_message
        return self.both(inner, number, is_root=True) if is_multipart else self.both(inner, (*number, 1))

    def _lines(self, part: Part) -> int:
        return self._octets.count(b"\n", part.start, part.end)


def _raw(part: Part, name: str) -> bytes | None:
    return _value(part.header, name)


def _media_type(part: Part) -> tuple[bytes, bytes]:
    """What it is taken for, quoted."""
    main, _, subtype = part.media_type.partition("/")
    if part.children and not part.is_message:
        main = "multipart"
    elif main == "multipart":  # without parts: a text to whoever reads it
        main, subtype = "text", "plain"
    return string(main.upper().encode("ascii", "replace")), string(
        (subtype or "plain").upper().encode("ascii", "replace")
    )


def _encoding(part: Part) -> bytes:
    return string((part.encoding or "7bit").upper().encode("ascii", "replace")[:40])


def parameters_of(value: bytes | None) -> bytes:
    """As they stand, continuations and all; a client puts them together (RFC 2231)."""
    if value is None:
        return b"NIL"
    found = [
        string(match[1].upper()) + b" " + string(_ESCAPED.sub(rb"\1", match[2]) if match[2] is not None else match[3])
        for match in _bounded(_PARAMETER.finditer(value))
    ]
    return b"(" + b" ".join(found) + b")" if found else b"NIL"


def _bounded(matches: Iterator["re.Match[bytes]"]) -> Iterator["re.Match[bytes]"]:
    for _, match in zip(range(MAX_PARAMETERS), matches, strict=False):
        yield match


def _extension(part: Part) -> tuple[bytes, bytes, bytes]:
    """Disposition, language, location."""
    disposition = _raw(part, "Content-Disposition")
    word = None if disposition is None else _TOKEN.match(disposition)
    told = b"NIL"
    if word is not None:
        told = b"(" + string(word[1].upper()) + b" " + parameters_of(disposition) + b")"
    return told, _language(_raw(part, "Content-Language")), nstring(_raw(part, "Content-Location"))


def _language(value: bytes | None) -> bytes:
    tags = [] if value is None else [each.strip() for each in value.split(b",")[:20] if each.strip()]
    if not tags:
        return b"NIL"
    return string(tags[0]) if len(tags) == 1 else b"(" + b" ".join(map(string, tags)) + b")"
