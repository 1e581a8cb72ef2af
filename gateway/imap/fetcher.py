"""FETCH, carried out: messages in batches, large sections in pieces, so that no mailbox is in memory at once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

from gateway.core.mailflags import SEEN
from gateway.imap.command import Fetch, Item, Section
from gateway.imap.ports import Account, Details, Gone, Out
from gateway.imap.sections import MAX_HEADER, Inner, Range, cut, of_inner, place_of
from gateway.imap.view import View
from gateway.imap.wire import literal, without_nul

BATCH = 200  # messages whose details are looked up at once
PIECE = 256 * 1024  # octets of a message that are in memory at once
_FREE = frozenset({Item.UID, Item.FLAGS, Item.MODSEQ})
_CHEAP = _FREE | {Item.SIZE, Item.INTERNALDATE}
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def internal_date(at: float) -> bytes:
    """RFC 3501 9, date-time: the day has two places."""
    found = datetime.fromtimestamp(int(at), UTC)
    return f'"{found.day:2d}-{_MONTHS[found.month - 1]}-{found:%Y %H:%M:%S} +0000"'.encode()


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
        self._command = command
        self._refresh = refresh  # of the view, by the session
        items = dict.fromkeys(command.items)
        if command.is_uid:
            items = {Item.UID: None, **items}
        self._sections = [item for item in items if isinstance(item, Section)]
        self._sees = any(not section.peek for section in self._sections) and not view.is_read_only
        if self._sees:
            items[Item.FLAGS] = None
        if command.changed_since is not None or (with_modseq and Item.FLAGS in items):
            items[Item.MODSEQ] = None
        self._items = list(items)
        self.has_missing = False  # a message that another session has removed

    async def run(self, places: Sequence[int]) -> None:
        for start in range(0, len(places), BATCH):
            await self._batch(places[start : start + BATCH])

    async def _batch(self, places: Sequence[int]) -> None:
        view, kinds = self._view, {item for item in self._items if isinstance(item, Item)}
        if self._sees:
            await self._mark_seen(places)
        if not self._sections and kinds <= _FREE:
            await self._out.send(b"".join(self._line(at, None) for at in places))
        elif not self._sections and kinds <= _CHEAP:
            uids = view.uids
            known = await self._account.sizes_and_dates(view.box, uids[places[0]], uids[places[-1]])
            lines = [self._line(at, known[uids[at]]) for at in places if uids[at] in known]
            self.has_missing |= len(lines) < len(places)
            await self._out.send(b"".join(lines))
        else:
            details = await self._account.details(view.box, [view.uids[at] for at in places])
            await self._with_details(places, details)

    async def _mark_seen(self, places: Sequence[int]) -> None:
        """RFC 3501 6.4.5: a body that is fetched without .PEEK is seen, and the answer says so."""
        view = self._view
        unseen = [view.uids[at] for at in places if not view.flags[at] & SEEN]
        if unseen:
            await self._account.set_flags(view.box, unseen, 1, ["\\Seen"], None)
            await self._refresh()
            for uid in unseen:
                view.heard(uid)

    def _line(self, at: int, known: tuple[int, float] | None) -> bytes:
        parts = [self._simple(item, at, known) for item in self._items if isinstance(item, Item)]
        return b"* %d FETCH (%b)\r\n" % (at + 1, b" ".join(parts))

    def _simple(self, item: Item, at: int, known: tuple[int, float] | None) -> bytes:
        view = self._view
        match item:
            case Item.UID:
                return b"UID %d" % view.uids[at]
            case Item.FLAGS:
                return b"FLAGS (%b)" % " ".join(view.flag_names(at)).encode()
            case Item.MODSEQ:
                return b"MODSEQ (%d)" % view.modseqs[at]
            case Item.SIZE if known is not None:
                return b"RFC822.SIZE %d" % known[0]
            case Item.INTERNALDATE if known is not None:
                return b"INTERNALDATE " + internal_date(known[1])
        return b""

    async def _with_details(self, places: Sequence[int], details: Mapping[int, Details]) -> None:
        lines: list[bytes] = []
        size = 0
        for at in places:
            message = details.get(self._view.uids[at])
            if message is None:
                self.has_missing = True
                continue
            pieces = await self._pieces(at, message)
            if pieces is None:
                self.has_missing = True
                continue
            lines.append(pieces)
            size += len(pieces)
            if size > PIECE:
                await self._out.send(b"".join(lines))
                lines, size = [], 0
        await self._out.send(b"".join(lines))

    async def _pieces(self, at: int, message: Details) -> bytes | None:
        """The whole answer, or what is left of it once large sections have gone out. None: the message is gone."""
        known = message.size, message.internal_date
        start = b"* %d FETCH (" % (at + 1)
        parts: list[bytes] = []
        for item in self._items:
            if isinstance(item, Section):
                try:
                    octets = await self._section(item, message)
                except Gone:
                    return None
                if isinstance(octets, Range):
                    await self._out.send(start + b" ".join([*parts, item.label + b" "]))
                    await self._large(message, octets)
                    start, parts = b"", [b""]
                    continue
                parts.append(item.label + b" " + (b"NIL" if octets is None else literal(octets)))
                continue
            match item:
                case Item.ENVELOPE:
                    parts.append(b"ENVELOPE " + message.envelope)
                case Item.BODYSTRUCTURE:
                    parts.append(b"BODYSTRUCTURE " + message.structure)
                case Item.BODY:
                    parts.append(b"BODY " + message.body)
                case _:
                    parts.append(self._simple(item, at, known))
        return start + b" ".join(parts) + b")\r\n"

    async def _section(self, section: Section, message: Details) -> bytes | Range | None:
        """Its octets, or a range that is too large to be in memory at once."""
        place = place_of(section, message)
        if isinstance(place, Inner):
            whole = place.whole
            place = of_inner(section, whole, await self._read(message, whole.start, min(whole.size, MAX_HEADER)))
        if place is None:
            return None
        if isinstance(place, bytes):
            first, size = cut(section, len(place))
            return place[first : first + size]
        first, size = cut(section, place.size)
        wanted = Range(place.start + first, size)
        return wanted if size > PIECE else await self._read(message, wanted.start, wanted.size)

    async def _read(self, message: Details, start: int, size: int) -> bytes:
        return await self._account.read(self._view.box, message, start, size) if size else b""

    async def _large(self, message: Details, octets: Range) -> None:
        """The first octets are read before the literal is begun: from there on there is no way back."""
        piece = await self._read(message, octets.start, min(PIECE, octets.size))
        await self._out.send(b"{%d}\r\n" % octets.size + without_nul(piece))
        done = len(piece)
        while done < octets.size:
            piece = await self._read(message, octets.start + done, min(PIECE, octets.size - done))
            if not piece:
                raise ConnectionError("a message's file is shorter than it was")
            await self._out.send(without_nul(piece))
            done += len(piece)
