"""What the session asks of the store that holds the mail: an account's mailboxes, without a word of how they are kept.

All calls are quick for what they are, and never block the caller's event loop. Times are seconds since the epoch, flags
numbers of `core.mailflags`.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from gateway.imap.numbers import Together
from gateway.imap.wire import Literal


class Box(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def uidvalidity(self) -> int: ...
    @property
    def uidnext(self) -> int: ...
    @property
    def modseq(self) -> int: ...
    @property
    def special(self) -> str: ...


class Rows(Protocol):
    """In the order of UIDs. Many sessions may have the same: not to be changed."""

    uids: "array[int]"
    flags: "array[int]"
    modseqs: "array[int]"
    modseq: int
    uidnext: int


class OpenedBox(Protocol):
    """first_recent: messages from this UID on are shown to this session first."""

    @property
    def box(self) -> Box: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def first_recent(self) -> int: ...
    @property
    def keywords(self) -> Mapping[int, str]: ...


class Changes(Protocol):
    """Since a modseq. is_whole: that is too long ago, and rows are all that there is."""

    @property
    def modseq(self) -> int: ...
    @property
    def uidnext(self) -> int: ...
    @property
    def is_whole(self) -> bool: ...
    @property
    def rows(self) -> Sequence[tuple[int, int, int]]: ...
    @property
    def vanished(self) -> Sequence[int]: ...


class Details(Protocol):
    """Those fields that were asked for. envelope, structure, body: in wire form; header: octets; places: of
    `summary.places_to_json`; file: what `read` needs.
    """

    @property
    def uid(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def internal_date(self) -> float: ...
    @property
    def file(self) -> str: ...
    @property
    def envelope(self) -> bytes: ...
    @property
    def structure(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...
    @property
    def header(self) -> bytes: ...
    @property
    def places(self) -> bytes: ...


class Batch(Protocol):
    """found: by UID, those that are there still; count: how many of the UIDs asked about that says something of. Where
    details are large, they are not all told at once.
    """

    @property
    def found(self) -> Mapping[int, Details]: ...
    @property
    def count(self) -> int: ...


class Searched(Protocol):
    """UIDs. found: for each that was wanted, in order; doubtful: those that have to be looked at themselves; mark: all
    from here on, too.
    """

    @property
    def found(self) -> Sequence[Sequence[int]]: ...
    @property
    def doubtful(self) -> frozenset[int]: ...
    @property
    def mark(self) -> int: ...


class BoxStatus(Protocol):
    @property
    def box(self) -> Box: ...
    @property
    def messages(self) -> int: ...
    @property
    def unseen(self) -> int: ...
    @property
    def deleted(self) -> int: ...
    @property
    def recent(self) -> int: ...
    @property
    def octets(self) -> int: ...


SEARCHED = frozenset({"subject", "from", "to", "cc", "bcc"})  # fields that `Account.search` knows


class NoMailbox(Exception):
    """There is none of that name. RFC 5530: NONEXISTENT."""


class MailboxThere(Exception):
    """ALREADYEXISTS."""


class NotDone(Exception):
    """CANNOT: the text says why."""


class NoRoom(Exception):
    """OVERQUOTA."""


class Gone(Exception):
    """A message, or the mailbox, that another session has removed."""


class Unavailable(Exception):
    """The store cannot do it now; nothing has changed."""


class Account(Protocol):
    """One user's. Calls that name a mailbox raise NoMailbox; all of them Unavailable, where a disk fails or is full."""

    @property
    def name(self) -> str: ...

    @property
    def together(self) -> Together:
        """What sessions of all accounts see."""

    async def boxes(self) -> tuple[Sequence[Box], set[str]]:
        """All of them by name, and the names that are subscribed."""

    async def status(self, names: Sequence[str]) -> Sequence[BoxStatus]: ...

    async def subscribe(self, name: str, *, is_on: bool) -> None: ...

    async def create(self, name: str, special: str) -> Box:
        """Raises MailboxThere, NotDone."""

    async def delete(self, name: str) -> None: ...

    async def rename(self, name: str, other: str) -> None:
        """Raises MailboxThere, NotDone."""

    async def open(self, name: str, *, takes_recent: bool) -> OpenedBox: ...

    async def changes(self, box: Box, since: int, *, takes_recent: bool) -> tuple[Changes, int]:
        """And the first UID that is recent to who asks. Raises Gone."""

    async def keywords(self, box: Box) -> Mapping[int, str]: ...

    async def details(self, box: Box, uids: Sequence[int], wanted: Collection[str]) -> Batch:
        """uids: in order; wanted: fields of Details."""

    async def read(self, box: Box, message: Details, start: int, size: int) -> bytes:
        """Octets of a message's file. Raises Gone."""

    async def read_many(self, box: Box, pieces: Sequence[tuple[Details, int, int]]) -> Sequence[bytes | None]:
        """The same of several messages: from which octet on, and how many; None: that message is gone."""

    async def search(self, box: Box, wanted: Sequence[tuple[str, str]]) -> Searched | None:
        """wanted: names of SEARCHED and texts, in lower case; "" for that the field is there. None: it was prepared a
        little further; ask again.
        """

    async def append(self, name: str, message: Literal, flags: Sequence[str], date: datetime) -> tuple[int, int]:
        """UIDVALIDITY and UID. Raises NotDone, NoRoom."""

    async def set_flags(
        self, box: Box, uids: Sequence[int], how: int, flags: Sequence[str], unchanged_since: int | None
    ) -> Sequence[int]:
        """Who changed since and was left alone. Raises NotDone."""

    async def expunge(self, box: Box, uids: Iterable[int] | None) -> None:
        """Those flagged as deleted; of these alone, if any are given."""

    async def copy(
        self, box: Box, uids: Sequence[int], target: str, *, moves: bool
    ) -> tuple[int, Sequence[tuple[int, int]]]:
        """The target's UIDVALIDITY, and each UID here and there. Raises NotDone, NoRoom."""

    async def rest(self) -> None:
        """Lets other sessions have their turn."""

    async def usage(self) -> tuple[int, int, int]:
        """Octets, messages, and how many octets there may be (0: no limit)."""


class Out(Protocol):
    async def send(self, octets: bytes) -> None:
        """Returns once the client keeps up."""
