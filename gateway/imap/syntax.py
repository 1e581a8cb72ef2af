"""The tokens of commands (RFC 3501 9): read one after the other from the texts of a command and its literals.

Whatever is wrong raises BadCommand with a plain reason; nothing is guessed, and numbers have the standard's bounds.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TypeVar

from gateway.core.foldernames import decode_utf7
from gateway.imap.command import STAR, SequenceSet
from gateway.imap.names import decode_name
from gateway.imap.wire import Literal, RawCommand

MAX_NUMBER = 2**32 - 1
MAX_MODSEQ = 2**63 - 1
MAX_RANGES = 20_000

T = TypeVar("T")


class BadCommand(Exception):
    """The text is for the client. tag: "" where there is none."""

    def __init__(self, reason: str, tag: str = "") -> None:
        super().__init__(reason)
        self.tag = tag


class BadCharset(BadCommand):
    """NO [BADCHARSET (…)] (RFC 3501 6.4.4)."""

    def __init__(self, reason: str = "US-ASCII and UTF-8 are known", tag: str = "") -> None:
        super().__init__(reason, tag)


TAG = re.compile(rb"[!#$&',./0-9:;<=>?@A-Z^_`a-z|}~\[\]-]{1,100}")
_ATOM = re.compile(rb"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~\[-]+")  # without ] for sections
_ASTRING = re.compile(rb"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~\[\]-]+")
_LIST = re.compile(rb"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~\[\]%*-]+")
_NUMBER = re.compile(rb"[0-9]{1,20}")
_SET = re.compile(rb"[0-9*,:]+")
_RANGE = re.compile(rb"([1-9][0-9]{0,9}|\*)(?::([1-9][0-9]{0,9}|\*))?\Z")
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\0]|\\["\\])*)"')
_ESCAPED = re.compile(rb"\\(.)")
FLAG = re.compile(rb"\\?[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~\[-]{1,100}")
FETCH = re.compile(rb"[A-Za-z0-9.]+")
_DATE = re.compile(rb'"?([ 0-9]?[0-9])-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)-([0-9]{4})"?', re.IGNORECASE)
_DATE_TIME = re.compile(
    rb'"([ 0-9][0-9])-(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)-([0-9]{4})'
    rb' ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"',
    re.IGNORECASE,
)
_MONTHS = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
SYSTEM_FLAGS = {name.lower(): name for name in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}


class Reader:
    """Over the texts of a command and the literals between them."""

    def __init__(self, raw: RawCommand, *, is_utf8: bool) -> None:
        self._raw = raw
        self._number = 0
        self._text = raw.texts[0]
        self._at = 0
        self.is_utf8 = is_utf8
        self.depth = 0
        self.keys = 0

    def match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise BadCommand(f"{what} is wanted")
        self._at = found.end()
        return found[0]

    def try_match(self, pattern: re.Pattern[bytes]) -> "re.Match[bytes] | None":
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def peek(self) -> bytes:
        return self._text[self._at : self._at + 1]

    def take(self, octets: bytes) -> bool:
        if self._text.startswith(octets, self._at):
            self._at += len(octets)
            return True
        return False

    def take_word(self, word: str) -> bool:
        """In any case, with the blank behind it."""
        end = self._at + len(word) + 1
        is_here = self._text[self._at : end].upper() == word.encode() + b" "
        self._at = end if is_here else self._at
        return is_here

    def want(self, octets: bytes) -> None:
        if not self.take(octets):
            raise BadCommand(f"{octets.decode()!r} is wanted")

    def space(self) -> None:
        self.want(b" ")

    def end(self) -> None:
        if self._at < len(self._text) or self._at_literal():
            raise BadCommand("more than the command takes")

    def word(self) -> str:
        return self.match(_ATOM, "a word").decode("ascii").upper()

    def number(self, limit: int = MAX_NUMBER) -> int:
        found = int(self.match(_NUMBER, "a number"))
        if found > limit:
            raise BadCommand("a number is too large")
        return found

    # --- strings --------------------------------------------------------------------------------------------------

    def _at_literal(self) -> bool:
        return self._at == len(self._text) and self._number < len(self._raw.literals)

    def literal(self) -> Literal:
        if not self._at_literal():
            raise BadCommand("a literal is wanted")
        found = self._raw.literals[self._number]
        self._number += 1
        self._text, self._at = self._raw.texts[self._number], 0
        return found

    def string(self) -> bytes:
        if self._at_literal():
            return self.literal().octets()
        found = self.try_match(_QUOTED)
        if found is None:
            raise BadCommand("a string is wanted")
        return _ESCAPED.sub(rb"\1", found[1])

    def is_string(self) -> bool:
        return self.peek() == b'"' or self._at_literal()

    def astring(self) -> bytes:
        return self.string() if self.is_string() else self.match(_ASTRING, "a string")

    def nstring(self) -> bytes | None:
        if not self.is_string() and self._text[self._at : self._at + 3].upper() == b"NIL":
            self._at += 3
            return None
        return self.string()

    def text(self) -> str:
        return self.astring().decode("utf-8", "replace")

    def mailbox(self, *, may_end_in_separator: bool = False) -> str:
        octets = self.astring()
        if may_end_in_separator:  # RFC 3501 6.3.3: it says that there will be some below
            octets = octets.removesuffix(b"/")
        try:
            return decode_name(octets, is_utf8=self.is_utf8)
        except ValueError as error:
            raise BadCommand(f"no name of a mailbox: {error}") from None

    def pattern(self, octets: bytes) -> str:
        """A name with wildcards."""
        try:
            return octets.decode("utf-8") if self.is_utf8 else decode_utf7(octets)
        except ValueError:
            raise BadCommand("no pattern in modified UTF-7") from None

    def list_pattern(self) -> str:
        return self.pattern(self.string() if self.is_string() else self.match(_LIST, "a pattern"))

    def set(self) -> SequenceSet:
        ranges: list[tuple[int, int]] = []
        for piece in self.match(_SET, "a set of numbers").split(b","):
            found = _RANGE.match(piece)
            if found is None or len(ranges) >= MAX_RANGES:
                raise BadCommand("no set of numbers")
            first, last = (STAR if each == b"*" else int(each) for each in (found[1], found[2] or found[1]))
            if max(first, last) > MAX_NUMBER:
                raise BadCommand("a number is too large")
            ranges.append((first, last))
        return SequenceSet(tuple(ranges))

    def list_of(self, read: Callable[[], T], *, may_be_empty: bool = False, limit: int = 1000) -> list[T]:
        """In parentheses."""
        self.want(b"(")
        found: list[T] = []
        if may_be_empty and self.take(b")"):
            return found
        while True:
            found.append(read())
            if len(found) > limit:
                raise BadCommand("a list is too long")
            if self.take(b")"):
                return found
            self.space()

    def words(self, *, may_be_empty: bool = False) -> tuple[str, ...]:
        return tuple(self.list_of(self.word, may_be_empty=may_be_empty))

    def flag(self) -> str:
        found = self.match(FLAG, "a flag").decode("ascii")
        if found.startswith("\\"):
            known = SYSTEM_FLAGS.get(found.lower())
            if known is None:
                raise BadCommand(f"{found} is no flag that can be set")
            return known
        return found

    def flags(self) -> tuple[str, ...]:
        found = self.list_of(self.flag, may_be_empty=True, limit=100)
        return tuple(dict.fromkeys(found))

    def day(self) -> date:
        found = self.try_match(_DATE)
        try:
            if found is None:
                raise ValueError
            return date(int(found[3]), _MONTHS.index(found[2].lower()) + 1, int(found[1]))
        except ValueError:
            raise BadCommand("no date: write 1-Feb-2026") from None

    def date_time(self) -> datetime:
        found = self.try_match(_DATE_TIME)
        try:
            if found is None:
                raise ValueError
            offset = timedelta(hours=int(found[8]), minutes=int(found[9]))
            zone = timezone(offset if found[7] == b"+" else -offset) if offset else UTC
            month = _MONTHS.index(found[2].lower()) + 1
            hour, minute, second = (int(found[number]) for number in (4, 5, 6))
            return datetime(int(found[3]), month, int(found[1]), hour, minute, second, tzinfo=zone)
        except ValueError:
            raise BadCommand('no date and time: write " 1-Feb-2026 10:00:00 +0100"') from None
