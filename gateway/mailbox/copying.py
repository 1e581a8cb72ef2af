"""Messages of one mailbox put into another: the same files under new names, with flags, keywords and summaries."""

from collections.abc import Sequence
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.mailflags import FIRST_KEYWORD, letters_of
from gateway.mailbox import maildir
from gateway.mailbox.index import Index
from gateway.mailbox.values import Box, StoredMessage

_SYSTEM = (1 << FIRST_KEYWORD) - 1  # bits of the flags that all mailboxes share


def copy_messages(
    index: Index,
    box: Box,
    other: Box,
    found: Sequence[tuple[StoredMessage, str]],
    source: Path,
    folder: Path,
    made: list[tuple[str, str]],
    *,
    moves: bool,
) -> list[tuple[int, int]]:
    """UIDs here and there. found: messages of the first mailbox, with their email ids; source, folder: of the
    mailboxes; made: gets the files' names, in tmp and in cur; moves: the first mailbox forgets them afterwards. Within
    a change. Raises StoreError where a file is gone.
    """
    if not found:
        return []
    words = index.keywords(box.id)
    kept: dict[int, int] = {}  # by the flags there were
    used = 0
    copies: list[tuple[StoredMessage, str]] = []
    first, modseq = index.take_uids(other.id, len(found))
    for uid, (message, email_id) in enumerate(found, first):
        flags = kept.get(message.flags)
        if flags is None:
            keywords = [word for bit, word in words.items() if message.flags >> bit & 1]
            bits = index.keyword_bits(other.id, keywords, create=True, drops=True, used=used)
            flags = kept[message.flags] = message.flags & _SYSTEM | bits
            used |= bits
        temporary = maildir.link_temporary(source, message.file, folder)
        if temporary is None:
            raise StoreError(f"the file of message {message.uid} is gone")
        name = maildir.final_name(temporary, message.size, uid, letters_of(flags))
        made.append((maildir.name_in(folder, "tmp", temporary), maildir.name_in(folder, "cur", name)))
        maildir.link_into_place(folder, temporary, name)
        copies.append((StoredMessage(uid, message.size, name, message.internal_date, flags), email_id))
    pairs = [(message.uid, copy.uid) for (message, _), (copy, _) in zip(found, copies, strict=True)]
    index.add_copies(other.id, modseq, copies)
    (index.take_along if moves else index.tell_as)(box.id, other.id, pairs)
    return pairs
