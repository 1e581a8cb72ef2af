"""What is read of messages: what was worked out of them, octets of their files, which of them say something."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import BinaryIO

from gateway.core.foldernames import INBOX
from gateway.mailbox import headings, maildir
from gateway.mailbox.headings import Searched
from gateway.mailbox.indexes import Indexes
from gateway.mailbox.values import (
    FIELDS,
    MAX_SUMMARISED,
    STORED,
    Batch,
    Box,
    Details,
    StoredMessage,
    Summarise,
)

TOLD = 50  # messages whose summaries are kept together


class Reading:
    """Of all accounts. summarise: what IMAP asks of a message."""

    def __init__(self, indexes: Indexes, summarise: Summarise) -> None:
        self._indexes = indexes
        self._summarise = summarise

    def details(self, account: str, box: Box, uids: Sequence[int], wanted: Collection[str] = FIELDS) -> Batch:
        """Of those that are there; what is not worked out yet is now. uids: in order; wanted: of FIELDS."""
        with self._indexes.use(account) as opened:
            batch = opened.index.details(box.id, uids, wanted)
        missing = [uid for uid in uids[: batch.count] if uid not in batch.found]
        if missing and not {*wanted} <= {*STORED}:
            for start in range(0, len(missing), TOLD):
                self._tell(account, box, missing[start : start + TOLD])
            with self._indexes.use(account) as opened:
                batch = opened.index.details(box.id, uids, wanted)
        return batch

    def _tell(self, account: str, box: Box, uids: Sequence[int]) -> None:
        with self._indexes.use(account) as opened:
            messages = [message for uid in uids if (message := opened.index.message(box.id, uid)) is not None]
        told = []
        for message in messages:
            with suppress(FileNotFoundError), self.open_message(account, message, box) as file:
                told.append((message.uid, self._summarise(file.read(MAX_SUMMARISED))))
        with self._indexes.use(account) as opened:
            index = opened.index
            with index.note():
                for uid, summary in told:
                    if index.message(box.id, uid) is not None:
                        index.tell(box.id, uid, summary)

    def search(self, account: str, box: Box, wanted: Sequence[tuple[str, str]]) -> Searched | None:
        """What `headings.search` finds. None: more messages had to be headed first, and some are now."""
        with self._indexes.use(account) as opened:
            uids = headings.missing(opened.index, box.id)
        if uids:
            batch = self.details(account, box, uids, {"header"})
            with suppress(sqlite3.OperationalError), self._indexes.use(account) as opened:  # a disk may be full
                with opened.index.note():
                    headings.keep(opened.index, box.id, uids[: batch.count], batch.found)
                return None
        with self._indexes.use(account) as opened:
            return headings.search(opened.index, box.id, wanted)

    def open_message(self, account: str, message: "StoredMessage | Details", box: Box | None = None) -> BinaryIO:
        """Without a box, of INBOX. Raises FileNotFoundError when another session removed it."""
        indexes = self._indexes
        folder = indexes.folder(account, INBOX) if box is None else indexes.folder_now(account, box)
        try:
            return (folder / "cur" / message.file).open("rb")
        except FileNotFoundError:
            path = maildir.find(folder, message.file)
            if path is None:
                raise
            return path.open("rb")

    def read_many(self, account: str, box: Box, pieces: Iterable[tuple[Details, int, int]]) -> list[bytes | None]:
        """Of messages: from which octet on, and how many. None: another session removed the message."""
        folder = self._indexes.folder_now(account, box)
        found: list[bytes | None] = []
        for message, start, size in pieces:
            try:
                found.append(maildir.read(folder, message.file, start, size))
            except FileNotFoundError:
                found.append(None)
        return found
