"""SEARCH over a mailbox (RFC 3501 6.4.4): what flags and numbers say at once, the rest of messages one by one.

Texts are compared as people read them: decoded, in lower case, without a look at how they were written.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

from gateway.core.mailflags import SYSTEM
from gateway.imap.command import (
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
from gateway.imap.texts import field_has, header_has, texts_of, values_of
from gateway.imap.view import View
from gateway.message.header import decode_text

QUICK: frozenset[str] = frozenset()  # what a key needs that flags and numbers answer


@dataclass(slots=True)
class Candidate:
    """A message that is looked at, as far as `needs` says. octets: MAX_TEXT at most."""

    at: int
    details: Details
    octets: bytes = b""
    _texts: list[str] | None = None

    @property
    def texts(self) -> list[str]:
        """Of all parts that are text, decoded, in lower case."""
        if self._texts is None:
            self._texts = texts_of(self.octets, self.details.places, self.details.size)
        return self._texts


Told = Mapping[HasText, Mapping[int, None]]  # UIDs that have a text, in order


def leaves(key: SearchKey) -> Iterator[SearchKey]:
    """What it asks, whatever joins it."""
    match key:
        case Not(key=inner):
            yield from leaves(inner)
        case Either(one=one, other=other):
            yield from leaves(one)
            yield from leaves(other)
        case Both(keys=keys):
            for each in keys:
                yield from leaves(each)
        case _:
            yield key


def asks_modseq(key: SearchKey) -> bool:
    return any(isinstance(each, ChangedSince) for each in leaves(key))


def needs(key: SearchKey, told: Told) -> frozenset[str]:
    """Fields of Details; "file": the message's octets too."""
    return QUICK.union(*(_needs(each) for each in leaves(key) if each not in told))


def _needs(leaf: SearchKey) -> frozenset[str]:
    match leaf:
        case HasSize():
            return frozenset({"size"})
        case Within() | OnDay(of="internal"):
            return frozenset({"internal_date"})
        case HasText(where="BODY"):
            return frozenset({"size", "file", "places"})
        case HasText(where="TEXT"):
            return frozenset({"size", "file", "places", "header"})
        case OnDay() | HasText():
            return frozenset({"header"})
    return QUICK


class Searcher:
    """Over one view. A number that there is not matches nothing. told: of texts that are known already."""

    def __init__(self, view: View, told: Told) -> None:
        self._view = view
        self.told = told
        self._bits = {word.lower(): 1 << bit for bit, word in view.keywords.items()} | {
            name.lower(): bit for name, bit in SYSTEM.items()
        }
        self._sets: dict[int, list[tuple[int, int]]] = {}
        self._now = time.time()

    def narrowed(self, key: SearchKey, places: Sequence[int]) -> Sequence[int]:
        """Those of these places that flags and numbers leave over; in order, as they are."""
        view = self._view
        match key:
            case HasFlag(flag="\\Recent", is_set=is_set):
                return [at for at in places if view.is_recent(at) is is_set]
            case HasFlag(flag=flag, is_set=is_set):
                bit, flags = self._bits.get(flag.lower(), 0), view.flags
                return (
                    [at for at in places if flags[at] & bit] if is_set else [at for at in places if not flags[at] & bit]
                )
            case InSet():
                return self._in_set(key, places)
            case ChangedSince(modseq=modseq):
                modseqs = view.modseqs
                return [at for at in places if modseqs[at] >= modseq]
            case HasText() if key in self.told:
                return self._with_text(self.told[key], places)
            case Both(keys=keys):
                for each in keys:
                    places = self.narrowed(each, places)
            case Not(key=inner) if needs(inner, self.told) == QUICK:
                out = set(self.narrowed(inner, places))
                return [at for at in places if at not in out]
            case Either(one=one, other=other):
                either = {*self.narrowed(one, places), *self.narrowed(other, places)}
                return [at for at in places if at in either]
        return places

    def _in_set(self, key: InSet, places: Sequence[int]) -> list[int]:
        spans = self._sets.get(id(key))
        if spans is None:
            spans = self._sets[id(key)] = self._view.spans(key.numbers, is_uid=key.is_uid) or []
        if isinstance(places, range):
            return [at for first, end in spans for at in range(max(first, places.start), min(end, places.stop))]
        # Of each place, the span that begins at it or before it.
        return [
            at
            for at in places
            if (found := bisect_right(spans, (at, len(self._view) + 1))) and at < spans[found - 1][1]
        ]

    def _with_text(self, told: Mapping[int, None], places: Sequence[int]) -> list[int]:
        if isinstance(places, range) and len(told) < len(places):
            numbers = map(self._view.number, told)
            return [number - 1 for number in numbers if number is not None and number - 1 in places]
        uids = self._view.uids
        return [at for at in places if uids[at] in told]

    def matches(self, key: SearchKey, candidate: Candidate) -> bool:
        """With what `needs` says at hand."""
        match key:
            case HasSize(is_larger=is_larger, octets=octets):
                size = candidate.details.size
                return size > octets if is_larger else size < octets
            case Within(is_older=is_older, seconds=seconds):
                age = self._now - candidate.details.internal_date
                return age >= seconds if is_older else age <= seconds
            case OnDay():
                return _is_on(key, candidate)
            case HasText() if key not in self.told:
                return _has_text(key, candidate)
            case Not(key=inner):
                return not self.matches(inner, candidate)
            case Either(one=one, other=other):
                return self.matches(one, candidate) or self.matches(other, candidate)
            case Both(keys=keys):
                return all(self.matches(each, candidate) for each in keys)
        return bool(self.narrowed(key, [candidate.at]))


def _is_on(key: OnDay, candidate: Candidate) -> bool:
    """RFC 3501: of the day alone, without a look at the zone."""
    if key.of == "internal":
        day = datetime.fromtimestamp(candidate.details.internal_date, UTC).date()
    else:
        found = _sent(candidate)
        if found is None:
            return False
        day = found
    return day < key.day if key.how < 0 else day >= key.day if key.how > 0 else day == key.day


def _sent(candidate: Candidate) -> date | None:
    found = values_of(candidate.details.header, "date")
    try:
        return parsedate_to_datetime(decode_text(found[0])).date() if found else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _has_text(key: HasText, candidate: Candidate) -> bool:
    wanted = key.text.lower()
    if key.where == "BODY":
        return any(wanted in text for text in candidate.texts)
    if key.where == "TEXT":
        return header_has(candidate.details.header, wanted) or any(wanted in text for text in candidate.texts)
    header = candidate.details.header
    return field_has(header, key.where, wanted) if wanted else bool(values_of(header, key.where))
