"""FETCH, carried out: messages in batches, large sections in pieces, so that no mailbox is in memory at once."""

from collections.abc import Awaitable, Callable, Sequence

from gateway.core.mailflags import SEEN
from gateway.imap.command import Fetch, FetchItem, Item, Section
from gateway.imap.lines import FIELDS, Lines
from gateway.imap.ports import Account, Details, Gone, Out
from gateway.imap.sections import MAX_HEADER, Inner, Range, cut, header_section, of_inner, place_of
from gateway.imap.view import View
from gateway.imap.wire import literal, without_nul

BATCH = 500  # messages whose details are looked up at once
FREE_BATCH = 2000  # the same, where nothing has to be looked up
LINES = 250  # that are sent at once
PIECE = 256 * 1024  # octets of a message that are in memory at once
GROUP = 1024 * 1024  # octets of several messages, if each has less than a PIECE
_OF_FILE = ("size", "file", "header", "places")  # fields of Details that a section of a message's file takes

Ranges = list[Range | bytes]  # of a message's sections; octets: of those at hand, in wire form


class Fetcher:
    def __init__(
        self,
        account: Account,
        out: Out,
        view: View,
        command: Fetch,
        refresh: Callable[[], Awaitable[None]],
        *,
        with_modseq: bool,
    ) -> None:
        self._account = account
        self._out = out
        self._view = view
        self._refresh = refresh  # of the view, by the session
        items: dict[FetchItem, None] = dict.fromkeys(command.items)
        if command.is_uid:
            items = {Item.UID: None, **items}
        sections = [item for item in items if isinstance(item, Section)]
        self._sees = any(not section.peek for section in sections) and not view.is_read_only
        if self._sees:
            items[Item.FLAGS] = None
        if command.changed_since is not None or (with_modseq and Item.FLAGS in items):
            items[Item.MODSEQ] = None
        self._items = list(items)
        self._lines = Lines(view, self._items)
        self._of_header = {each: header_section(each) for each in sections if _is_of_header(each)}
        self._of_file = [each for each in sections if each not in self._of_header]
        self._wanted = self._fields()
        self.has_missing = False  # a message that another session has removed

    def _fields(self) -> set[str]:
        """Of Details, all that is asked for."""
        found = {FIELDS[item] for item in self._items if isinstance(item, Item) and item in FIELDS}
        if self._of_header:
            found.add("header")
        for section in self._of_file:
            found |= {"size", "file"} if section.text == "" and not section.part else {*_OF_FILE}
        return found

    async def run(self, places: Sequence[int]) -> None:
        size = BATCH if self._wanted else FREE_BATCH
        done = 0
        while done < len(places):
            done += await self._batch(places[done : done + size])

    async def _batch(self, places: Sequence[int]) -> int:
        """How many of these it has answered."""
        view = self._view
        if self._sees:
            await self._mark_seen(places)
        if not self._wanted:
            await self._send(self._lines.made(places, (), {}))
            return len(places)
        told = await self._account.details(view.box, [view.uids[at] for at in places], self._wanted)
        found = told.found
        there = [at for at in places[: told.count] if view.uids[at] in found]
        self.has_missing |= len(there) < told.count
        messages = [found[view.uids[at]] for at in there]
        if self._of_file:
            await self._with_files(there, messages)
        else:
            await self._send(self._lines.made(there, messages, self._headers(messages)))
        return told.count

    async def _send(self, lines: Sequence[bytes]) -> None:
        for start in range(0, len(lines), LINES):
            await self._out.send(b"".join(lines[start : start + LINES]))

    async def _mark_seen(self, places: Sequence[int]) -> None:
        """RFC 3501 6.4.5: a body that is fetched without .PEEK is seen, and the answer says so."""
        view = self._view
        unseen = [view.uids[at] for at in places if not view.flags[at] & SEEN]
        if unseen:
            await self._account.set_flags(view.box, unseen, 1, ["\\Seen"], None)
            await self._refresh()
            view.heard(unseen)

    def _headers(self, messages: Sequence[Details]) -> dict[Section, Sequence[bytes]]:
        """Sections that are cut from the headers at hand, in wire form."""
        return {
            section: [literal(header(message.header)) for message in messages]
            for section, header in self._of_header.items()
        }

    # --- sections of the file -------------------------------------------------------------------------------------

    async def _with_files(self, places: Sequence[int], messages: Sequence[Details]) -> None:
        """In groups that are read at once; messages that take more than one look are answered by themselves."""
        first = octets = 0
        group: list[Ranges] = []
        for at, message in enumerate(messages):
            ranges = self._ranges(message)
            size = sum(each.size for each in ranges or () if isinstance(each, Range))
            if ranges is None or octets + size > GROUP:
                await self._group(places[first:at], messages[first:at], group)
                first, octets, group = at, 0, []
            if ranges is None:
                await self._alone(places[at], message)
                first = at + 1
            else:
                group.append(ranges)
                octets += size
        await self._group(places[first:], messages[first:], group)

    def _ranges(self, message: Details) -> Ranges | None:
        """None: one of them is too large to be in memory, or where it lies is seen only once something is read."""
        found: Ranges = []
        for section in self._of_file:
            place = place_of(section, message)
            if isinstance(place, Inner):
                return None
            if place is None:
                found.append(b"NIL")
                continue
            place = cut(section, place)
            if isinstance(place, bytes) or not place.size:
                found.append(literal(place if isinstance(place, bytes) else b""))
            elif place.size > PIECE:
                return None
            else:
                found.append(place)
        return found

    async def _group(self, places: Sequence[int], messages: Sequence[Details], group: Sequence[Ranges]) -> None:
        rows = await self._values(messages, group)
        kept = [number for number, row in enumerate(rows) if row is not None]
        self.has_missing |= len(kept) < len(group)
        there = [messages[number] for number in kept]
        sections = self._headers(there)
        for column, section in enumerate(self._of_file):
            sections[section] = [row[column] for row in rows if row is not None]
        await self._send(self._lines.made([places[number] for number in kept], there, sections))

    async def _values(self, messages: Sequence[Details], group: Sequence[Ranges]) -> list[list[bytes] | None]:
        """Of each message's sections, in wire form. None: the message is gone."""
        pieces = [
            (message, each.start, each.size)
            for message, ranges in zip(messages, group, strict=True)
            for each in ranges
            if isinstance(each, Range)
        ]
        read = iter(await self._account.read_many(self._view.box, pieces) if pieces else ())
        rows: list[list[bytes] | None] = []
        for ranges in group:
            found = [next(read) if isinstance(each, Range) else each for each in ranges]
            values = [
                literal(octets) if isinstance(each, Range) else octets
                for each, octets in zip(ranges, found, strict=True)
                if octets is not None
            ]
            rows.append(values if len(values) == len(ranges) else None)
        return rows

    async def _alone(self, at: int, message: Details) -> None:
        """One message's answer, its large sections in pieces."""
        start = b"* %d FETCH (" % (at + 1)
        parts: list[bytes] = []
        for item in self._items:
            if isinstance(item, Item):
                parts.append(self._lines.part(item, at, message))
                continue
            try:
                octets = await self._section(item, message)
                if isinstance(octets, Range):
                    await self._large(message, octets, start + b" ".join([*parts, item.label + b" "]))
                    start, parts = b"", [b""]
                    continue
            except Gone:
                if not start:
                    raise ConnectionError("a message went while it was told") from None
                self.has_missing = True
                return
            parts.append(item.label + b" " + (b"NIL" if octets is None else literal(octets)))
        await self._out.send(start + b" ".join(parts) + b")\r\n")

    async def _section(self, section: Section, message: Details) -> bytes | Range | None:
        """Its octets, or a range that is too large to be in memory at once."""
        place = place_of(section, message)
        if isinstance(place, Inner):
            whole = place.whole
            place = of_inner(section, whole, await self._read(message, whole.start, min(whole.size, MAX_HEADER)))
        if place is None:
            return None
        place = cut(section, place)
        if isinstance(place, bytes) or place.size > PIECE:
            return place
        return await self._read(message, place.start, place.size)

    async def _read(self, message: Details, start: int, size: int) -> bytes:
        return await self._account.read(self._view.box, message, start, size) if size else b""

    async def _large(self, message: Details, octets: Range, start: bytes) -> None:
        """start: of the answer; the first octets are read before it is sent, since from there on there is no way
        back.
        """
        piece = await self._read(message, octets.start, min(PIECE, octets.size))
        await self._out.send(start + b"{%d}\r\n" % octets.size + without_nul(piece))
        done = len(piece)
        while done < octets.size:
            try:
                piece = await self._read(message, octets.start + done, min(PIECE, octets.size - done))
            except Gone:
                piece = b""
            if not piece:
                raise ConnectionError("a message's file is shorter than it was")
            await self._out.send(without_nul(piece))
            done += len(piece)


def _is_of_header(section: Section) -> bool:
    return not section.part and section.text not in ("", "TEXT")
