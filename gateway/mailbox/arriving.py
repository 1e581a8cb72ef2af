"""A message on its way into a mailbox: its file is there, synced, below tmp/; here it gets its UID, its name, its rows.

In this order, so that a crash leaves nothing half: linked into cur/, that folder synced, rows written, committed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.core.mailflags import letters_of
from gateway.mailbox import foreign, maildir
from gateway.mailbox.boxes import NoSuchBox
from gateway.mailbox.index import Index
from gateway.mailbox.maildir import Written
from gateway.mailbox.quota import is_level_reached, make_room
from gateway.mailbox.schema import is_io_error
from gateway.mailbox.values import Arrival, StoredMessage, Summarised


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a message is to go, and with what. delivery_id: "" for what a user stores; limit: octets that the account
    may have, 0 for any amount; email_id: which message it is, where that is known.
    """

    name: str
    flags: int
    keywords: Sequence[str]
    date: float
    delivery_id: str
    limit: int
    email_id: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """octets: of the whole account now. is_level_reached: its user is to be told."""

    uidvalidity: int
    uid: int
    octets: int
    is_level_reached: bool


def asked(index: Index, wish: Wish, size: int) -> Arrival | None:
    """None: the delivery is there already. Raises NoSuchBox, OverQuota for so many octets more."""
    found = index.arrival(wish.name, wish.delivery_id)
    if found is None:
        raise NoSuchBox(f"no mailbox {wish.name}")
    if found.is_there:
        return None
    make_room(found.octets, wish.limit, size, is_delivery=bool(wish.delivery_id))
    return found


def store(index: Index, folder: Path, wish: Wish, written: Written, told: Summarised | None) -> Stored | None:
    """None: the delivery is there already. Raises what `asked` does."""
    final = ""
    try:
        with index.change():
            found = asked(index, wish, written.size)
            if found is None:
                return None
            box = found.box
            flags = wish.flags | index.keyword_bits(box.id, wish.keywords, create=True)
            uid, modseq = index.take_uids(box.id, 1)
            final = maildir.final_name(written.unique, written.size, uid, letters_of(flags))
            with foreign.ours(index, box.id, folder):
                maildir.link_into_place(folder, written.unique, final)
            maildir.sync_folder(folder)
            message = StoredMessage(uid, written.size, final, wish.date, flags)
            index.add(box.id, modseq, message, told, wish.email_id or wish.delivery_id or written.unique)
            if wish.delivery_id:
                index.note_delivery(wish.delivery_id)
            octets = found.octets + written.size
            return Stored(box.uidvalidity, uid, octets, is_level_reached(index, octets, found.warned, wish.limit))
    except BaseException as error:
        if final and not is_io_error(error):  # after an I/O error the commit may yet stand
            with suppress(FileNotFoundError):
                (folder / "cur" / final).unlink()
        raise
