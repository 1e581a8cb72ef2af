"""The parts of a message (RFC 2045, 2046): where each begins and ends in the octets received, and what is odd about it.

One pass over the octets with a stack of open boundaries, so no nesting costs more than its lines; nothing recurses and
nothing is decoded here. Whatever the structure, each octet of the body belongs to a part or to what stands around
parts, and what one mail program may read otherwise than another is told as a fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.message.header import MAX_HEADER, Header, parse_header
from gateway.message.parameters import Parameters, parse_parameters
from gateway.message.transfer import IDENTITIES

MAX_PARTS = 1000
MAX_DEPTH = 32
MAX_DASHED_LINES = 100_000  # that may be boundaries
MAX_FIELDS = 20_000  # of all parts
MAX_BOUNDARY = 200  # characters; RFC 2046 5.1.1 allows 70

TEXT = Parameters("text/plain", {})
ENCODINGS = frozenset({"base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue"})
# A reader that looks for headers everywhere finds one in what stands before or behind the parts.
_HIDDEN = (b"content-disposition:", b"content-transfer-encoding:", b"content-type:")

# What may be wrong, as rules see it in `message.faults`.
FAULTS = (
    "bad_header",  # lines that are no fields, or no end of the header
    "bad_part_header",
    "two_content_types",
    "two_encodings",
    "odd_content_type",  # one that some read as another
    "two_parameters",  # a parameter given twice with different values
    "long_parameters",  # more than is read
    "unknown_encoding",
    "bad_encoding",  # base64 or quoted-printable that breaks its rules
    "encoded_multipart",  # RFC 2045 6.4: never base64 or quoted-printable
    "no_boundary",  # a multipart that names none
    "missing_boundary",  # a multipart whose boundary never comes
    "odd_boundary",  # a line that some take for a boundary and others do not
    "unterminated",  # a multipart without its closing delimiter
    "hidden_part",  # a part's header outside of all parts
    "too_many_parts",
    "too_deep",
    "partial",  # message/partial: a fragment that nobody can check
    "external_body",  # message/external-body: not in this message at all
    "two_names",  # names of one file that differ
    "control_in_name",
    "too_large",  # more than is looked at
)
# Where two readers see two messages, what one of them scans need not be what the other shows.
AMBIGUOUS = frozenset(FAULTS) - {"unterminated", "unknown_encoding", "bad_encoding", "external_body", "two_names"}


@dataclass(slots=True)
class Part:
    """number: as in RFC 3501 6.4.5, "" for the message itself; start, end: of its body in the octets walked."""

    number: str
    depth: int
    header: Header
    content_type: Parameters
    disposition: Parameters
    encoding: str
    start: int
    end: int = 0
    children: int = 0

    @property
    def media_type(self) -> str:
        return self.content_type.word

    @property
    def is_multipart(self) -> bool:
        return bool(self.children) and not self.is_message

    @property
    def is_message(self) -> bool:
        return self.media_type == "message/rfc822"

    @property
    def is_leaf(self) -> bool:
        return not self.children

    @property
    def names(self) -> tuple[str, ...]:
        """All file names that it is given, that of the disposition first."""
        found = (*self.disposition.values.get("filename", ()), *self.content_type.values.get("name", ()))
        return tuple(dict.fromkeys(name for name in found if name))


@dataclass(slots=True)
class Structure:
    """parts: in the order of the message, containers before what they hold; faults: of FAULTS."""

    parts: list[Part] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Open:
    """A multipart whose end has not come yet."""

    part: Part
    boundary: bytes
    mark: int  # where its preamble, or what follows its last part, begins
    has_begun: bool = False


def walk(octets: bytes, *, is_fragment: bool = False) -> Structure:
    """Of a whole message. is_fragment: of an embedded one, whose header may be missing."""
    return _Walk(octets).run(is_fragment)


def _is_header_alone(header: Header, octets: bytes) -> bool:
    """RFC 5322 3.5: without a body the blank line may be missing too."""
    size = sum(len(field.raw) for field in header.fields)
    return bool(header.fields) and size == len(octets) == header.end and octets.endswith(b"\r\n")


class _Walk:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.found = Structure()
        self.open: list[_Open] = []
        self.delimiters: set[bytes] = set()  # of what is open, both kinds
        self.current: Part | None = None  # the leaf whose end has not come yet
        self.fields = 0

    def run(self, is_fragment: bool) -> Structure:
        header = parse_header(self.octets)
        if header.is_malformed and not is_fragment and not _is_header_alone(header, self.octets):
            self.found.faults.add("bad_header")
        self._begin(header, header.end, "", 0, TEXT)
        for start, end in self._dashed_lines():
            if not self.open:
                break
            self._line(start, end)
        self._finish(len(self.octets))
        return self.found

    def _dashed_lines(self) -> Iterator[tuple[int, int]]:
        """Start and end of each line that begins with two dashes, from where the current part's body begins."""
        octets = self.octets
        at = max(0, self.found.parts[-1].start - 2)
        for _ in range(MAX_DASHED_LINES):
            if octets.startswith(b"--", at) and (at == 0 or octets[at - 1 : at] == b"\n"):
                start = at
            else:
                start = octets.find(b"\n--", max(0, at - 1)) + 1
                if not start:
                    return
            end = octets.find(b"\n", start)
            end = len(octets) if end < 0 else end + 1
            yield start, end
            at = max(end, self.found.parts[-1].start)
        if self.open:
            self.found.faults.add("too_many_parts")

    def _line(self, start: int, end: int) -> None:
        """If it is a delimiter of an open multipart, what was open below it ends here (RFC 2046 5.1.2)."""
        text = self.octets[start + 2 : min(end, start + MAX_BOUNDARY + 6)].rstrip(b"\r\n\t ")
        for level in range(len(self.open) - 1, -1, -1):
            boundary = self.open[level].boundary
            if not text.startswith(boundary):
                continue
            rest = text[len(boundary) :]
            if rest in (b"", b"--"):
                self._delimiter(level, start, end, is_last=rest == b"--")
                return
            if text not in self.delimiters:
                self.found.faults.add("odd_boundary")

    def _delimiter(self, level: int, start: int, end: int, *, is_last: bool) -> None:
        before = start - 2 if self.octets[start - 2 : start] == b"\r\n" else start
        is_between = self.current is None and level == len(self.open) - 1
        self._close(level + 1, before)
        found = self.open[level]
        if is_between:
            self._look_for_hidden(found.mark, start)
        found.has_begun = True
        if is_last:
            self.open.pop(level)
            self._note_delimiters()
            found.part.end = max(before, found.part.start)
            self._outside(level, end)
            return
        self._begin_part(found, end)

    def _outside(self, level: int, at: int) -> None:
        """Behind the end of a multipart: the epilogue, which nobody shows."""
        if level:
            self.open[level - 1].mark = at
        else:
            self._look_for_hidden(at, len(self.octets))

    def _look_for_hidden(self, start: int, end: int) -> None:
        text = self.octets[start : min(end, start + 64 * 1024)].lower()
        if any(text.startswith(name) or b"\n" + name in text for name in _HIDDEN):
            self.found.faults.add("hidden_part")

    def _begin_part(self, found: _Open, at: int) -> None:
        header = Header((), 2, False)
        if not self.octets.startswith(b"\r\n", at):
            header = self._inner_header(at)
            if header.is_malformed:
                self.found.faults.add("bad_part_header")
        parent = found.part
        parent.children += 1
        number = f"{parent.number}.{parent.children}" if parent.number else str(parent.children)
        # RFC 2046 5.1.5: the parts of a digest are messages unless they say otherwise.
        default = Parameters("message/rfc822", {}) if parent.media_type == "multipart/digest" else TEXT
        self._begin(header, at + header.end, number, parent.depth + 1, default)

    def _inner_header(self, at: int) -> Header:
        """Of a part, or of a message in a message: it ends at a blank line, or before a delimiter."""
        octets, end = self.octets, min(len(self.octets), at + MAX_HEADER)
        blank = octets.find(b"\r\n\r\n", at, end)
        end = blank + 4 if blank >= 0 else end
        for found in self.open:
            delimiter = b"--" + found.boundary
            cut = at if octets.startswith(delimiter, at) else octets.find(b"\n" + delimiter, at, end) + 1
            end = cut if at <= cut < end and cut else end
        return parse_header(octets[at:end])

    def _begin(self, header: Header, start: int, number: str, depth: int, default: Parameters) -> None:
        """A part begins; of a message in a message the embedded one begins with it."""
        while True:
            part = self._part(header, min(start, len(self.octets)), number, depth, default)
            self.fields += len(header.fields)
            if len(self.found.parts) >= MAX_PARTS or (number and self.fields > MAX_FIELDS):
                self.found.faults.add("too_many_parts")
                self.current = None
                self.open.clear()
                return
            self.found.parts.append(part)
            self.current = part
            if depth >= MAX_DEPTH:
                self.found.faults.add("too_deep")
                return
            if part.media_type.startswith("multipart/"):
                self._open(part)
                return
            if not part.is_message:
                return
            if part.encoding in ENCODINGS:
                self.found.faults.add("encoded_multipart")
                return
            part.children = 1
            header = self._inner_header(part.start)
            inner = self.octets[part.start : part.start + header.end]
            if header.is_malformed and header.fields and not _is_header_alone(header, inner):
                self.found.faults.add("bad_part_header")
            start, depth, default = part.start + header.end, depth + 1, TEXT
            number = f"{number}.1" if number else "1"

    def _part(self, header: Header, start: int, number: str, depth: int, default: Parameters) -> Part:
        faults = self.found.faults
        found = header.first("Content-Type")
        content_type = default if found is None else parse_parameters(found.value)
        if "/" not in content_type.word:
            content_type = Parameters("text/plain", content_type.values)  # RFC 2045 5.2
        if header.count("Content-Type") > 1:
            faults.add("two_content_types")
        field = header.first("Content-Disposition")
        disposition = Parameters("", {}) if field is None else parse_parameters(field.value)
        if content_type.is_ambiguous_but_for_names or disposition.is_ambiguous_but_for_names:
            faults.add("two_parameters")
        if found is not None and content_type.is_odd:
            faults.add("odd_boundary" if "boundary" in content_type.values else "odd_content_type")
        if content_type.is_cut or disposition.is_cut:
            faults.add("long_parameters")
        encoding = self._encoding(header)
        if content_type.word == "message/partial":
            faults.add("partial")
        elif content_type.word == "message/external-body":
            faults.add("external_body")
        if number:  # what a hostile message has thousands of is not kept
            kept = tuple(each for each in header.fields if each.name.lower().startswith("content-"))
            if len(kept) < len(header.fields):
                header = Header(kept, header.end, header.is_malformed)
        return Part(number, depth, header, content_type, disposition, encoding, start)

    def _encoding(self, header: Header) -> str:
        if header.count("Content-Transfer-Encoding") > 1:
            self.found.faults.add("two_encodings")
        field = header.first("Content-Transfer-Encoding")
        if field is None:
            return ""
        word = parse_parameters(field.value).word
        if word not in ENCODINGS and word not in IDENTITIES:
            self.found.faults.add("unknown_encoding")
        return word

    def _open(self, part: Part) -> None:
        if part.encoding in ENCODINGS:
            self.found.faults.add("encoded_multipart")
        boundary = part.content_type.first("boundary").encode("utf-8", "surrogateescape").rstrip()
        if not boundary:
            self.found.faults.add("no_boundary")
            return
        self.open.append(_Open(part, boundary[:MAX_BOUNDARY], part.start))
        self._note_delimiters()
        self.current = None

    def _note_delimiters(self) -> None:
        names = [found.boundary for found in self.open]
        self.delimiters = {*names, *(name + b"--" for name in names)}

    def _end_current(self, at: int) -> None:
        """The leaf ends, and with it the messages that it is the body of."""
        if self.current is not None:
            self.current.end = max(at, self.current.start)
            self.current = None

    def _close(self, level: int, at: int) -> None:
        """Multiparts from `level` on end at `at`, without a delimiter of their own."""
        self._end_current(at)
        for found in self.open[level:]:
            found.part.end = max(at, found.part.start)
            self.found.faults.add("unterminated" if found.has_begun else "missing_boundary")
        del self.open[level:]
        self._note_delimiters()

    def _finish(self, at: int) -> None:
        self._close(0, at)
        # A message ends where what it holds ends: with the next part of the multipart around it, or at the end.
        ends: dict[int, int] = {}
        for part in reversed(self.found.parts):
            if not part.end and part.is_message and part.children:
                part.end = ends.get(part.depth + 1, at)
            elif not part.end:
                part.end = at
            ends[part.depth] = part.end
