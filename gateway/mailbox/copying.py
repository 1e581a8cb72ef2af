"""Messages of one mailbox put into another: the same files under new names, with flags, keywords and summaries."""

from collections.abc import Sequence
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.mailflags import letters_of
from gateway.mailbox import maildir
from gateway.mailbox.index import Box, Index, StoredMessage


def copy_messages(
    index: Index,
    box: Box,
    other: Box,
    uids: Sequence[int],
    source: Path,
    folder: Path,
    made: list[tuple[Path, Path]],
) -> list[tuple[int, int]]:
    """UIDs here and there. source, folder: of the mailboxes; made: gets the files' names, in tmp and in cur. Within a
    change. Raises StoreError where a file is gone.
    """
    words = index.keywords(box.id)
    pairs: list[tuple[int, int]] = []
    found = [message for message in (index.message(box.id, uid) for uid in uids) if message is not None]
    if not found:
        return pairs
    first, modseq = index.take_uids(other.id, len(found))
    for uid, message in enumerate(found, first):
        path = maildir.find(source, message.file)
        if path is None:
            raise StoreError(f"the file of message {message.uid} is gone")
        kept = [word for bit, word in words.items() if message.flags >> bit & 1]
        flags = message.flags & 31 | index.keyword_bits(other.id, kept, create=True, drops=True)
        temporary = maildir.link_temporary(path, folder)
        name = maildir.final_name(temporary.name, message.size, uid, letters_of(flags))
        made.append((temporary, folder / "cur" / name))
        maildir.link_into_place(temporary, folder, name)
        index.add(
            other.id, modseq, StoredMessage(uid, message.size, name, message.internal_date, flags), None,
            index.email_id(box.id, message.uid),
        )  # fmt: skip
        index.tell_as(box.id, message.uid, other.id, uid)
        pairs.append((message.uid, uid))
    return pairs
