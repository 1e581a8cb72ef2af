"""What the store's rooms tell each other of mailboxes and messages, as values. Dates are seconds since the epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_SUMMARISED = 64 * 1024 * 1024  # octets of a message that are looked at to tell its structure


@dataclass(frozen=True, slots=True)
class Box:
    """modseq: the highest; recent: UIDs from here on have been shown to nobody; special: `\\Sent` and the like."""

    id: int
    name: str
    uidvalidity: int
    uidnext: int
    modseq: int
    special: str
    recent: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """octets: of the account now; warned: the level of which its user was told; is_there: the delivery."""

    box: Box
    octets: int
    warned: int
    is_there: bool


@dataclass(frozen=True, slots=True)
class Summarised:
    """What is worked out of a message once, in the forms in which it is kept."""

    envelope: bytes
    structure: bytes
    body: bytes
    header: bytes
    places: bytes


Summarise = Callable[[bytes], Summarised]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    uid: int
    size: int
    file: str
    internal_date: float
    flags: int = 0


class Details(NamedTuple):
    """Of fields that nobody asked for there is nothing."""

    uid: int
    size: int = 0
    internal_date: float = 0.0
    file: str = ""
    envelope: bytes = b""
    structure: bytes = b""
    body: bytes = b""
    header: bytes = b""
    places: bytes = b""


OF_MSG = {"size": ("size", "0"), "internal_date": ("idate", "0.0"), "file": ("file", "''")}
OF_META = {"envelope": "env", "structure": "bs", "body": "body", "header": "hdr", "places": "parts"}
FIELDS = (*OF_MSG, *OF_META)  # of Details, but for uid
STORED = (*OF_MSG,)  # those that nothing needs to be worked out for


@dataclass(frozen=True, slots=True)
class Batch:
    """found: by UID; count: of how many of the UIDs that were asked about, from the first."""

    found: dict[int, Details]
    count: int


@dataclass(slots=True)
class Changes:
    """Since a modseq. rows: uid, flags, modseq of what is there; vanished: UIDs, in order. is_whole: that is too long
    ago, and rows are all that there is.
    """

    modseq: int
    uidnext: int
    is_whole: bool = False
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    vanished: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FlagChange:
    """how: -1 without, 0 exactly, 1 with these too."""

    how: int
    flags: int

    def applied(self, flags: int) -> int:
        if self.how == 0:
            return self.flags
        return flags | self.flags if self.how > 0 else flags & ~self.flags
