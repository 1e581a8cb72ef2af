"""Commands as values (RFC 3501 6; RFC 4315, 5032, 5258, 5819, 6154, 6851, 7162, 9208); `parser` reads them."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum

from gateway.imap.wire import Literal

STAR = 0  # in a set: the largest number in use


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """ranges: first and last, as they stand, STAR for `*`."""

    ranges: tuple[tuple[int, int], ...]


# --- FETCH --------------------------------------------------------------------------------------------------------


class Item(Enum):
    FLAGS = "FLAGS"
    UID = "UID"
    INTERNALDATE = "INTERNALDATE"
    SIZE = "RFC822.SIZE"
    ENVELOPE = "ENVELOPE"
    BODY = "BODY"
    BODYSTRUCTURE = "BODYSTRUCTURE"
    MODSEQ = "MODSEQ"


@dataclass(frozen=True, slots=True)
class Section:
    """part: numbers, () for the whole message; text: "" HEADER TEXT MIME HEADER.FIELDS HEADER.FIELDS.NOT; label: how
    the answer names it; partial: first octet and how many.
    """

    label: bytes
    part: tuple[int, ...] = ()
    text: str = ""
    fields: tuple[bytes, ...] = ()
    partial: tuple[int, int] | None = None
    peek: bool = False


FetchItem = Item | Section
MACROS = {
    "FAST": (Item.FLAGS, Item.INTERNALDATE, Item.SIZE),
    "ALL": (Item.FLAGS, Item.INTERNALDATE, Item.SIZE, Item.ENVELOPE),
    "FULL": (Item.FLAGS, Item.INTERNALDATE, Item.SIZE, Item.ENVELOPE, Item.BODY),
}
WHOLE = {
    "RFC822": Section(b"RFC822"),
    "RFC822.HEADER": Section(b"RFC822.HEADER", text="HEADER", peek=True),
    "RFC822.TEXT": Section(b"RFC822.TEXT", text="TEXT"),
    "RFC822.PEEK": Section(b"RFC822", peek=True),  # old Outlook's
}


# --- SEARCH -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class All:
    pass


@dataclass(frozen=True, slots=True)
class HasFlag:
    flag: str
    is_set: bool = True


@dataclass(frozen=True, slots=True)
class HasText:
    """where: "BODY", "TEXT" or a header field in lower case; text "": the field is there."""

    where: str
    text: str


@dataclass(frozen=True, slots=True)
class OnDay:
    """of: "internal" or "sent"; how: -1 before, 0 on, 1 since."""

    of: str
    how: int
    day: date


@dataclass(frozen=True, slots=True)
class HasSize:
    is_larger: bool
    octets: int


@dataclass(frozen=True, slots=True)
class InSet:
    numbers: SequenceSet
    is_uid: bool


@dataclass(frozen=True, slots=True)
class ChangedSince:
    modseq: int


@dataclass(frozen=True, slots=True)
class Within:
    """RFC 5032: seconds before now, by the internal date."""

    is_older: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class Not:
    key: "SearchKey"


@dataclass(frozen=True, slots=True)
class Either:
    one: "SearchKey"
    other: "SearchKey"


@dataclass(frozen=True, slots=True)
class Both:
    keys: tuple["SearchKey", ...]


SearchKey = All | HasFlag | HasText | OnDay | HasSize | InSet | ChangedSince | Within | Not | Either | Both


# --- commands -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Simple:
    """Without arguments: CAPABILITY NOOP LOGOUT STARTTLS CHECK CLOSE UNSELECT IDLE NAMESPACE EXPUNGE."""

    verb: str


@dataclass(frozen=True, slots=True)
class Id:
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Authenticate:
    mechanism: str
    initial: bytes | None


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Enable:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resync:
    """What the client knows of a mailbox (RFC 7162 3.2.5)."""

    validity: int
    modseq: int
    uids: SequenceSet | None = None
    sample: tuple[SequenceSet, SequenceSet] | None = None


@dataclass(frozen=True, slots=True)
class Select:
    name: str
    is_read_only: bool
    with_modseq: bool = False
    resync: Resync | None = None


@dataclass(frozen=True, slots=True)
class OnMailbox:
    """verb: CREATE DELETE SUBSCRIBE UNSUBSCRIBE GETQUOTAROOT; uses: of CREATE (RFC 6154)."""

    verb: str
    name: str
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rename:
    name: str
    other: str


@dataclass(frozen=True, slots=True)
class GetQuota:
    root: str


@dataclass(frozen=True, slots=True)
class List:
    """selection, returns: words of RFC 5258 and 6154; status: items of RETURN (STATUS (…)); is_lsub: the old LSUB."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    is_lsub: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    name: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Append:
    name: str
    flags: tuple[str, ...]
    date: datetime | None
    message: Literal


@dataclass(frozen=True, slots=True)
class Search:
    """returns None: an untagged SEARCH; else words of RFC 4731."""

    key: SearchKey
    is_uid: bool
    returns: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    numbers: SequenceSet
    items: tuple[FetchItem, ...]
    is_uid: bool
    changed_since: int | None = None
    with_vanished: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """how: -1 without, 0 exactly, 1 with these flags too."""

    numbers: SequenceSet
    how: int
    flags: tuple[str, ...]
    is_silent: bool
    is_uid: bool
    unchanged_since: int | None = None


@dataclass(frozen=True, slots=True)
class Copy:
    numbers: SequenceSet
    name: str
    is_uid: bool
    moves: bool


@dataclass(frozen=True, slots=True)
class ExpungeUids:
    numbers: SequenceSet


Command = (
    Simple | Id | Authenticate | Login | Enable | Select | OnMailbox | Rename | GetQuota | List | Status | Append
    | Search | Fetch | Store | Copy | ExpungeUids
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tagged:
    tag: str
    command: Command
