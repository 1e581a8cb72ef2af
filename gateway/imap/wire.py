"""Commands as they come over the wire: lines, and literals between them (RFC 3501 2.2, 4.3; RFC 7888).

Sans-IO: octets go in in pieces of any size, whole commands come out. Every line and literal has a bound that the caller
sets, since before sign-in a stranger gets little. A literal may be written elsewhere as it comes, so that a message
that is appended need not be in memory.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

MAX_DISCARDED = 128 * 1024 * 1024  # octets of a refused literal that are read on; more ends the connection
MAX_LITERALS = 100  # in one command

_LITERAL = re.compile(rb"(~?)\{(\d{1,20})(\+?)\}\Z")


@dataclass(slots=True)
class Literal:
    """file: holds the octets, to be read from its start."""

    size: int
    file: BinaryIO
    is_binary: bool = False

    def octets(self) -> bytes:
        self.file.seek(0)
        return self.file.read()


@dataclass(slots=True)
class RawCommand:
    """texts: those between the literals, so one more than there are literals; each without its line end."""

    texts: list[bytes] = field(default_factory=list)
    literals: list[Literal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for a continuation before it sends a literal."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that is over a bound. start: what was read of it, for its tag; is_literal: it is a literal that is too
    large, else a line; is_fatal: what follows cannot be told from it.
    """

    start: bytes
    is_literal: bool
    is_fatal: bool


Event = RawCommand | Continue | Refused


@dataclass(frozen=True, slots=True)
class Bounds:
    """line: octets of one line; literal: asked with what has been read of the command, and answers how large its
    literals may be together.
    """

    line: int
    literal: Callable[[bytes], int]


class CommandReader:
    """new_file: for a literal of so many octets."""

    def __init__(self, bounds: Bounds, new_file: Callable[[int], BinaryIO] = lambda size: BytesIO()) -> None:
        self.bounds = bounds
        self.new_file = new_file
        self._input = bytearray()
        self._scanned = 0  # octets of the input that have no line end in them
        self._command = RawCommand()
        self._filling: Literal | None = None
        self._missing = 0  # octets of that literal, or of one that is discarded
        self._is_discarding = False
        self._drops_line = False  # the rest of a refused command's line

    @property
    def has_input(self) -> bool:
        """Is there anything that no event has been made of?"""
        return bool(self._input) or self._filling is not None or bool(self._command.texts)

    def feed(self, octets: bytes) -> None:
        self._input += octets

    def next(self) -> Event | None:
        """None: more octets are needed."""
        while True:
            if self._missing:
                if not self._input:
                    return None
                self._take_literal()
                continue
            self._end_literal()
            line = self._line()
            if line is None:
                return self._too_long()
            if self._drops_line:
                self._drops_line = False
                continue
            event = self._take_line(line)
            if event is not None:
                return event

    # --- literals -------------------------------------------------------------------------------------------------

    def _take_literal(self) -> None:
        taken = bytes(self._input[: self._missing])
        del self._input[: self._missing]
        self._missing -= len(taken)
        if self._filling is not None:
            self._filling.file.write(taken)

    def _end_literal(self) -> None:
        if self._filling is not None:
            self._command.literals.append(self._filling)
            self._filling = None
        if self._is_discarding:
            self._is_discarding = False
            self._drops_line = True
        self._scanned = 0

    # --- lines ----------------------------------------------------------------------------------------------------

    def _line(self) -> bytes | None:
        """Ends with CRLF; a bare LF ends a line too, for people with telnet."""
        end = self._input.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._input)
            return None
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        self._scanned = 0
        return line.removesuffix(b"\r")

    def _too_long(self) -> Refused | None:
        if len(self._input) <= self.bounds.line:
            return None
        start = self._start(bytes(self._input[:100]))
        self._input.clear()
        return Refused(start, is_literal=False, is_fatal=True)

    def _start(self, line: bytes) -> bytes:
        return (self._command.texts[0] if self._command.texts else line)[:100]

    def _take_line(self, line: bytes) -> Event | None:
        if len(line) > self.bounds.line:
            start, self._command = self._start(line), RawCommand()
            return Refused(start, is_literal=False, is_fatal=True)
        match = _LITERAL.search(line)
        if match is None:
            command, self._command = self._command, RawCommand()
            command.texts.append(line)
            return command
        size, is_waiting = int(match[2]), not match[3]
        text = line[: match.start()]
        bound = self.bounds.literal(self._start(text)) - sum(each.size for each in self._command.literals)
        if size > bound or len(self._command.literals) >= MAX_LITERALS:
            return self._refuse_literal(text, size, is_waiting=is_waiting)
        self._command.texts.append(text)
        self._filling = Literal(size, self.new_file(size), bool(match[1]))
        self._missing = size
        return Continue() if is_waiting else None

    def _refuse_literal(self, text: bytes, size: int, *, is_waiting: bool) -> Refused:
        """A client that waits goes on with another command; one that does not has its octets read and dropped."""
        start, self._command = self._start(text), RawCommand()
        if not is_waiting:
            if size > MAX_DISCARDED:
                return Refused(start, is_literal=True, is_fatal=True)
            self._missing, self._is_discarding = size, True
        return Refused(start, is_literal=True, is_fatal=False)


# --- what goes out ------------------------------------------------------------------------------------------------

_QUOTABLE = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]*\Z")
_ATOM = re.compile(rb"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~-]+\Z")
MAX_QUOTED = 1000


def string(octets: bytes) -> bytes:
    """Quoted where it can be, else a literal."""
    if len(octets) <= MAX_QUOTED and _QUOTABLE.match(octets):
        return b'"' + octets + b'"'
    return literal(octets)


def literal(octets: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(octets), without_nul(octets))


def without_nul(octets: bytes) -> bytes:
    """NUL has no place in a literal (RFC 3501 9, CHAR8)."""
    return octets.replace(b"\0", b"?")


def nstring(octets: bytes | None) -> bytes:
    return b"NIL" if octets is None else string(octets)


def astring(octets: bytes) -> bytes:
    """An atom where it can be."""
    return octets if _ATOM.match(octets) and octets.upper() != b"NIL" else string(octets)
