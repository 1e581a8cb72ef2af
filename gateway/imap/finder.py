"""SEARCH, carried out: as little is read of messages as the keys need."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from gateway.imap.command import HasText, Search, SearchKey
from gateway.imap.ports import SEARCHED, Account, Details, Gone
from gateway.imap.search import QUICK, Candidate, Searcher, asks_modseq, leaves, needs
from gateway.imap.texts import MAX_TEXT
from gateway.imap.view import View, set_of
from gateway.imap.wire import string

BATCH = 500  # messages whose details are looked up at once
GROUP = 512 * 1024  # octets of messages that are in memory at once, and looked into before others have their turn
STRETCH = 10_000  # messages whose flags are looked at before that


class Finder:
    def __init__(self, account: Account, view: View) -> None:
        self._account = account
        self._view = view

    async def found(self, command: Search) -> list[int]:
        """Places, from 0."""
        key, view = command.key, self._view
        texts = [each for each in dict.fromkeys(leaves(key)) if isinstance(each, HasText) and each.where in SEARCHED]
        if not texts:
            return await self._among(Searcher(view, {}), key, range(len(view)))
        wanted = [(each.where, each.text.lower()) for each in texts]
        while (searched := await self._account.search(view.box, wanted)) is None:
            await self._account.rest()
        mark = bisect_left(view.uids, searched.mark)
        told = {each: dict.fromkeys(uids) for each, uids in zip(texts, searched.found, strict=True)}
        doubtful = [at for at in range(mark) if view.uids[at] in searched.doubtful] if searched.doubtful else []
        places = {*await self._among(Searcher(view, told), key, range(mark))}.difference(doubtful)
        places.update(await self._among(Searcher(view, {}), key, [*doubtful, *range(mark, len(view))]))
        return sorted(places)

    async def _among(self, searcher: Searcher, key: SearchKey, among: Sequence[int]) -> list[int]:
        """Those of these places, in order."""
        places: list[int] = []
        for first in range(0, len(among), STRETCH):
            places += searcher.narrowed(key, among[first : first + STRETCH])
            await self._account.rest()
        wanted = needs(key, searcher.told)
        if wanted == QUICK:
            return places
        out: list[int] = []
        done = 0
        while done < len(places):
            told = await self._account.details(
                self._view.box, [self._view.uids[at] for at in places[done : done + BATCH]], wanted
            )
            for group in _groups(self._candidates(places[done : done + told.count], told.found)):
                if "file" in wanted:
                    await self._read(group)
                out += [each.at for each in group if searcher.matches(key, each)]
                await self._account.rest()
            done += told.count
        return out

    def _candidates(self, places: Sequence[int], found: Mapping[int, Details]) -> list[Candidate]:
        uids = self._view.uids
        return [Candidate(at, message) for at in places if (message := found.get(uids[at])) is not None]

    async def _read(self, group: Sequence[Candidate]) -> None:
        """A message that is gone has no texts."""
        pieces = [(each.details, 0, min(each.details.size, MAX_TEXT)) for each in group]
        try:
            read = await self._account.read_many(self._view.box, pieces)
        except Gone:
            return
        for each, octets in zip(group, read, strict=True):
            each.octets = octets or b""

    def response(self, command: Search, places: Sequence[int], tag: bytes) -> bytes:
        view = self._view
        numbers = [view.uids[at] if command.is_uid else at + 1 for at in places]
        modseq = max((view.modseqs[at] for at in places), default=0) if asks_modseq(command.key) else 0
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


def _groups(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Those whose octets are in memory at once."""
    group: list[Candidate] = []
    octets = 0
    for each in candidates:
        size = min(each.details.size, MAX_TEXT)
        if group and octets + size > GROUP:
            yield group
            group, octets = [], 0
        group.append(each)
        octets += size
    if group:
        yield group
