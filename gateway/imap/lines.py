"""FETCH's answers, many messages at a time: of each item a column of values, of each message a line made of them.

A mailbox of 200,000 messages is told in as many lines: nothing is done for a message that can be done once for all.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from gateway.imap.command import FetchItem, Item, Section
from gateway.imap.ports import Details
from gateway.imap.view import View

_MONTHS = (b"", *b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
_FORMS = {
    Item.UID: b"UID %d",
    Item.FLAGS: b"FLAGS (%b)",
    Item.MODSEQ: b"MODSEQ (%d)",
    Item.SIZE: b"RFC822.SIZE %d",
    Item.INTERNALDATE: b"INTERNALDATE %b",
    Item.ENVELOPE: b"ENVELOPE %b",
    Item.BODYSTRUCTURE: b"BODYSTRUCTURE %b",
    Item.BODY: b"BODY %b",
}
# Fields of Details that items need.
FIELDS = {
    Item.SIZE: "size",
    Item.INTERNALDATE: "internal_date",
    Item.ENVELOPE: "envelope",
    Item.BODYSTRUCTURE: "structure",
    Item.BODY: "body",
}

Column = Sequence[int] | Sequence[bytes]
Messages = Sequence[Details]


def internal_date(at: float) -> bytes:
    """RFC 3501 9, date-time: the day has two places."""
    year, month, day, hour, minute, second, *_ = time.gmtime(at)
    return b'"%2d-%b-%d %02d:%02d:%02d +0000"' % (day, _MONTHS[month], year, hour, minute, second)


_OF_DETAILS: dict[Item, Callable[[Messages], Column]] = {
    Item.SIZE: lambda messages: [message.size for message in messages],
    Item.INTERNALDATE: lambda messages: [internal_date(message.internal_date) for message in messages],
    Item.ENVELOPE: lambda messages: [message.envelope for message in messages],
    Item.BODYSTRUCTURE: lambda messages: [message.structure for message in messages],
    Item.BODY: lambda messages: [message.body for message in messages],
}


class Lines:
    """items: without two that are the same."""

    def __init__(self, view: View, items: Sequence[FetchItem]) -> None:
        self._view = view
        self._items = items
        self._form = b"* %d FETCH (" + b" ".join(map(_form, items)) + b")\r\n"

    def made(
        self, places: Sequence[int], messages: Messages, sections: Mapping[Section, Sequence[bytes]]
    ) -> list[bytes]:
        """places: in the view; messages: of these, if items ask for their details; sections: values, in wire form."""
        numbers = [at + 1 for at in places]
        columns = [
            sections[item] if isinstance(item, Section) else self._column(item, places, messages)
            for item in self._items
        ]
        form = self._form
        return [form % row for row in zip(numbers, *columns, strict=True)]

    def part(self, item: Item, at: int, message: Details) -> bytes:
        """What one item says of one message."""
        (value,) = self._column(item, [at], [message])
        return _FORMS[item] % value

    def _column(self, item: Item, places: Sequence[int], messages: Messages) -> Column:
        view = self._view
        match item:
            case Item.UID:
                return [view.uids[at] for at in places]
            case Item.FLAGS:
                return view.flags_of(places)
            case Item.MODSEQ:
                return [view.modseqs[at] for at in places]
        return _OF_DETAILS[item](messages)


def _form(item: FetchItem) -> bytes:
    return item.label.replace(b"%", b"%%") + b" %b" if isinstance(item, Section) else _FORMS[item]
