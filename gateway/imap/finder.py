"""SEARCH, carried out: as little is read of messages as the keys need."""

from collections.abc import Sequence

from gateway.imap.command import Both, ChangedSince, Either, Not, Search, SearchKey
from gateway.imap.ports import Account, Details, Gone
from gateway.imap.search import BODIES, HEADERS, MAX_TEXT, QUICK, SIZES, Candidate, Searcher, needs
from gateway.imap.view import View, set_of
from gateway.imap.wire import string

BATCH = 100  # messages whose headers are in memory at once
STRETCH = 1000  # messages whose flags are looked at before other sessions have their turn


class Finder:
    def __init__(self, account: Account, view: View) -> None:
        self._account = account
        self._view = view

    def asks_modseq(self, key: SearchKey) -> bool:
        match key:
            case ChangedSince():
                return True
            case Not(key=inner):
                return self.asks_modseq(inner)
            case Either(one=one, other=other):
                return self.asks_modseq(one) or self.asks_modseq(other)
            case Both(keys=keys):
                return any(map(self.asks_modseq, keys))
        return False

    async def found(self, command: Search) -> list[int]:
        """Places, from 0."""
        searcher, key = Searcher(self._view), command.key
        places: list[int] = []
        for first in range(0, len(self._view), STRETCH):
            places += searcher.narrowed(key, first, min(first + STRETCH, len(self._view)))
            await self._account.rest()
        level = needs(key)
        if level == QUICK:
            return places
        batch = 1 if level == BODIES else BATCH  # one whole message in memory at a time
        out: list[int] = []
        for start in range(0, len(places), batch):
            candidates = await self._candidates(places[start : start + batch], level)
            for candidate in candidates:
                if searcher.matches(key, candidate):
                    out.append(candidate.at)
                if level >= HEADERS:
                    await self._account.rest()
        return out

    async def _candidates(self, places: Sequence[int], level: int) -> list[Candidate]:
        view = self._view
        uids = [view.uids[at] for at in places]
        if level == SIZES:
            known = await self._account.sizes_and_dates(view.box, uids[0], uids[-1])
            return [Candidate(at, *known[view.uids[at]]) for at in places if view.uids[at] in known]
        details = await self._account.details(view.box, uids)
        out = []
        for at in places:
            message = details.get(view.uids[at])
            if message is not None:
                octets = await self._octets(message) if level == BODIES else b""
                out.append(Candidate(at, message.size, message.internal_date, message, octets))
        return out

    async def _octets(self, message: Details) -> bytes:
        try:
            return await self._account.read(self._view.box, message, 0, min(message.size, MAX_TEXT))
        except Gone:
            return b""

    def response(self, command: Search, places: Sequence[int], tag: bytes) -> bytes:
        view = self._view
        numbers = [view.uids[at] if command.is_uid else at + 1 for at in places]
        modseq = max((view.modseqs[at] for at in places), default=0) if self.asks_modseq(command.key) else 0
        if command.returns is None:
            told = b"".join(b" %d" % number for number in numbers)
            return b"* SEARCH" + told + (b" (MODSEQ %d)" % modseq if modseq else b"") + b"\r\n"
        parts = [b"* ESEARCH (TAG %b)" % string(tag)]
        if command.is_uid:
            parts.append(b"UID")
        if numbers:
            if "MIN" in command.returns:
                parts.append(b"MIN %d" % numbers[0])
            if "MAX" in command.returns:
                parts.append(b"MAX %d" % numbers[-1])
            if "ALL" in command.returns:
                parts.append(b"ALL " + set_of(numbers))
        if "COUNT" in command.returns:
            parts.append(b"COUNT %d" % len(numbers))
        if modseq:
            parts.append(b"MODSEQ %d" % modseq)
        return b" ".join(parts) + b"\r\n"
