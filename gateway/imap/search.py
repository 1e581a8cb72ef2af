"""SEARCH over a mailbox (RFC 3501 6.4.4): what flags and numbers say at once, the rest of messages one by one.

Texts are compared as people read them: decoded, in lower case, without a look at how they were written.
"""

import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

from gateway.core.mailflags import SYSTEM
from gateway.imap.command import (
    All,
    Both,
    ChangedSince,
    Either,
    HasFlag,
    HasSize,
    HasText,
    InSet,
    Not,
    OnDay,
    SearchKey,
    Within,
)
from gateway.imap.ports import Details
from gateway.imap.view import View
from gateway.message.header import Header, decode_octets, decode_text, parse_header
from gateway.message.mime import walk
from gateway.message.transfer import decode

MAX_TEXT = 4 * 1024 * 1024  # octets of a message that BODY and TEXT look into

QUICK, SIZES, HEADERS, BODIES = range(4)  # what a key needs


@dataclass(slots=True)
class Candidate:
    """A message that is looked at; details, octets: as far as they are needed. size, internal_date: likewise."""

    at: int
    size: int = 0
    internal_date: float = 0.0
    details: Details | None = None
    octets: bytes = b""
    _header: Header | None = None
    _texts: list[str] | None = None

    @property
    def header(self) -> Header:
        if self._header is None:
            self._header = parse_header(self.details.header if self.details is not None else b"")
        return self._header

    @property
    def texts(self) -> list[str]:
        """Of all parts that are text, decoded, in lower case."""
        if self._texts is None:
            self._texts = _texts(self.octets)
        return self._texts


def needs(key: SearchKey) -> int:
    match key:
        case All() | HasFlag() | InSet() | ChangedSince():
            return QUICK
        case HasSize() | Within():
            return SIZES
        case OnDay(of=of):
            return SIZES if of == "internal" else HEADERS
        case HasText(where=where):
            return BODIES if where in ("BODY", "TEXT") else HEADERS
        case Not(key=inner):
            return needs(inner)
        case Either(one=one, other=other):
            return max(needs(one), needs(other))
        case Both(keys=keys):
            return max(needs(each) for each in keys)


class Searcher:
    """Over one view. A number that there is not matches nothing."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._bits = {word.lower(): 1 << bit for bit, word in view.keywords.items()} | {
            name.lower(): bit for name, bit in SYSTEM.items()
        }
        self._sets: dict[int, list[tuple[int, int]]] = {}
        self._now = time.time()

    def narrowed(self, key: SearchKey, first: int, end: int) -> list[int]:
        """Places of these that flags and numbers leave over."""
        found: list[int] = []
        for at in range(first, end):
            verdict = self._quick(key, at)
            if verdict is not False:
                found.append(at)
        return found

    def _quick(self, key: SearchKey, at: int) -> bool | None:
        """None: it takes a look at the message."""
        view = self._view
        match key:
            case All():
                return True
            case HasFlag(flag=flag, is_set=is_set):
                has = (
                    view.is_recent(at) if flag == "\\Recent" else bool(view.flags[at] & self._bits.get(flag.lower(), 0))
                )
                return has is is_set
            case InSet():
                return self._is_in(key, at)
            case ChangedSince(modseq=modseq):
                return view.modseqs[at] >= modseq
            case Not(key=inner):
                found = self._quick(inner, at)
                return None if found is None else not found
            case Either(one=one, other=other):
                verdicts = self._quick(one, at), self._quick(other, at)
                return True if True in verdicts else None if None in verdicts else False
            case Both(keys=keys):
                every = [self._quick(each, at) for each in keys]
                return False if False in every else None if None in every else True
        return None

    def _is_in(self, key: InSet, at: int) -> bool:
        spans = self._sets.get(id(key))
        if spans is None:
            spans = self._sets[id(key)] = self._view.spans(key.numbers, is_uid=key.is_uid) or []
        found = bisect_right(spans, (at, len(self._view) + 1)) - 1
        return found >= 0 and spans[found][0] <= at < spans[found][1]

    def matches(self, key: SearchKey, candidate: Candidate) -> bool:
        """With what `needs` says at hand."""
        quick = self._quick(key, candidate.at)
        if quick is not None:
            return quick
        match key:
            case HasSize(is_larger=is_larger, octets=octets):
                return candidate.size > octets if is_larger else candidate.size < octets
            case Within(is_older=is_older, seconds=seconds):
                age = self._now - candidate.internal_date
                return age >= seconds if is_older else age <= seconds
            case OnDay():
                return _is_on(key, candidate)
            case HasText():
                return _has_text(key, candidate)
            case Not(key=inner):
                return not self.matches(inner, candidate)
            case Either(one=one, other=other):
                return self.matches(one, candidate) or self.matches(other, candidate)
            case Both(keys=keys):
                return all(self.matches(each, candidate) for each in keys)
        return False


def _is_on(key: OnDay, candidate: Candidate) -> bool:
    """RFC 3501: of the day alone, without a look at the zone."""
    if key.of == "internal":
        day = datetime.fromtimestamp(candidate.internal_date, UTC).date()
    else:
        found = _sent(candidate)
        if found is None:
            return False
        day = found
    return day < key.day if key.how < 0 else day >= key.day if key.how > 0 else day == key.day


def _sent(candidate: Candidate) -> date | None:
    field = candidate.header.first("Date")
    try:
        return None if field is None else parsedate_to_datetime(decode_text(field.value)).date()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _has_text(key: HasText, candidate: Candidate) -> bool:
    wanted = key.text.lower()
    if key.where == "BODY":
        return any(wanted in text for text in candidate.texts)
    if key.where == "TEXT":
        header = decode_text_whole(candidate.header)
        return wanted in header or any(wanted in text for text in candidate.texts)
    fields = [field for field in candidate.header.fields if field.name.lower() == key.where]
    if not wanted:
        return bool(fields)
    return any(wanted in decode_text(field.value).lower() for field in fields)


def decode_text_whole(header: Header) -> str:
    return "\n".join(f"{field.name}: {decode_text(field.value)}" for field in header.fields).lower()


def _texts(octets: bytes) -> list[str]:
    found = []
    for part in walk(octets[:MAX_TEXT]).parts:
        if part.is_leaf and part.media_type.startswith("text/"):
            raw, _ = decode(octets[part.start : part.end], part.encoding)
            found.append(decode_octets(raw, part.content_type.first("charset")).lower())
    return found
