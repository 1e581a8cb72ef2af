"""The message store: one folder a user, Maildir++ files and an index (docs/store.md).

A message is written and synced, then it gets its UID, its file its name, and both are made durable; only then is it
delivered. A crash leaves at worst a file that no index row names, or a message whose retry is known by its delivery id.
All calls block: they belong in a small pool, never on an event loop.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX
from gateway.core.mailflags import letters_of
from gateway.mailbox import arriving, boxes, foreign, maildir
from gateway.mailbox.arriving import Wish
from gateway.mailbox.boxes import BoxExists, BoxStatus, NoSuchBox
from gateway.mailbox.copying import copy_messages
from gateway.mailbox.index import Index
from gateway.mailbox.indexes import Indexes, folder_of
from gateway.mailbox.maildir import Written
from gateway.mailbox.quota import Quotas, make_room
from gateway.mailbox.reading import Reading
from gateway.mailbox.rows import Rows
from gateway.mailbox.schema import is_io_error
from gateway.mailbox.traces import Traces
from gateway.mailbox.values import (
    MAX_SUMMARISED,
    Box,
    Changes,
    FlagChange,
    StoredMessage,
    Summarise,
    Summarised,
)


@dataclass(frozen=True, slots=True)
class OpenedBox:
    """rows: not to be changed, since others have the same; first_recent: the UID from which on nobody has seen them."""

    box: Box
    rows: Rows
    first_recent: int
    keywords: dict[int, str]


class MessageStore:
    """root: has `DOMAIN/LOCAL/Maildir` and `DOMAIN/LOCAL/index.db`. summarise: what IMAP asks of a message. on_rebuild:
    of `Indexes`.
    """

    def __init__(
        self, root: Path, summarise: Summarise, quotas: Quotas, on_rebuild: Callable[[str, bool], None]
    ) -> None:
        self._root = root
        self._summarise = summarise
        self._quotas = quotas
        self._indexes = Indexes(root, on_rebuild)
        self.reading = Reading(self._indexes, summarise)

    # --- messages come --------------------------------------------------------------------------------------------

    def deliver(
        self, account: str, pieces: Callable[[], Iterable[bytes]], delivery_id: str, internal_date: float
    ) -> bool:
        """Store in the account's INBOX; False when this delivery id is there already."""
        return self._add(account, INBOX, pieces, 0, (), internal_date, delivery_id) is not None

    def append(
        self,
        account: str,
        name: str,
        pieces: Iterable[bytes],
        flags: int,
        keywords: Sequence[str],
        date: float,
        email_id: str = "",
    ) -> tuple[int, int]:
        """UIDVALIDITY and UID. email_id: which message it is, where that is known. Raises NoSuchBox."""
        found = self._add(account, name, lambda: pieces, flags, keywords, date, "", email_id)
        if found is None:
            raise StoreError("a message without a delivery id is new")
        return found

    def _add(
        self,
        account: str,
        name: str,
        pieces: Callable[[], Iterable[bytes]],
        flags: int,
        keywords: Sequence[str],
        date: float,
        delivery_id: str,
        email_id: str = "",
    ) -> tuple[int, int] | None:
        """None: the delivery is there already."""
        limit = self._quotas.limit(account)
        wish = Wish(name, flags, keywords, date, delivery_id, limit, email_id)
        with self._indexes.use(account) as opened:  # before anything is written
            if arriving.asked(opened.index, wish, 1) is None:
                return None
            folder = self._made(opened.index, account, name)
        written = maildir.write_temporary(folder, pieces())
        try:
            told = self._told(written)
            with self._indexes.use(account) as opened:
                stored = arriving.store(opened.index, folder, wish, written, told)
        finally:
            maildir.drop([written.path])
        if stored is None:
            return None
        if stored.is_level_reached:
            self._warn(account, stored.octets, limit)
        return stored.uidvalidity, stored.uid

    def _warn(self, account: str, octets: int, limit: int) -> None:
        """The user is told; where that fails the message that reached the level is stored all the same."""
        message = self._quotas.warning(account, octets, limit)
        with suppress(Exception):
            self._add(account, INBOX, lambda: [message], 0, (), time.time(), f"quota {maildir.new_unique()}")

    def _told(self, written: Written) -> Summarised | None:
        if written.size > MAX_SUMMARISED:
            return None
        octets = written.octets
        if octets is None:
            with open(written.path, "rb") as file:
                octets = file.read()
        return self._summarise(octets)

    # --- what is there --------------------------------------------------------------------------------------------

    def snapshot(self, account: str) -> tuple[int, list[StoredMessage]]:
        """UIDVALIDITY and the messages of the INBOX now."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.wanted_box(INBOX)
            self._look(account, index, box)
            return box.uidvalidity, index.messages(box.id)

    def open_box(self, account: str, name: str, *, takes_recent: bool) -> OpenedBox:
        """What a session sees of a mailbox from now on. Raises NoSuchBox."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.box(name)
            if box is None:
                raise NoSuchBox(f"no mailbox {name}")
            if self._look(account, index, box):
                box = index.wanted_box(name)
            first = index.take_recent(box.id, box.uidnext) if takes_recent else box.recent
            rows = opened.rows.setdefault(box.id, Rows())
            changes = index.changes(box.id, rows.modseq)
            if changes is None:
                raise NoSuchBox(f"no mailbox {name}")
            rows.apply(changes)
            return OpenedBox(box, rows.shared(), first, index.keywords(box.id))

    def changes(self, account: str, box: int, since: int, *, takes_recent: bool) -> tuple[Changes, int] | None:
        """And the first UID that is recent to who asks. None: the mailbox is gone."""
        with self._indexes.use(account) as opened:
            index = opened.index
            name = index.name_of(box)
            if name is None:
                return None
            self._look_at(index, box, self._indexes.folder(account, name))
            found = index.changes(box, since)
            if found is None:
                return None
            is_asked = bool(found.rows) and takes_recent
            return found, index.take_recent(box, found.uidnext) if is_asked else found.uidnext

    def _look(self, account: str, index: Index, box: Box) -> bool:
        return self._look_at(index, box.id, self._indexes.folder(account, box.name))

    def _look_at(self, index: Index, box: int, folder: Path) -> bool:
        """Takes in what other programs did to a mailbox's folder; True if they did anything."""
        if not foreign.is_changed(index, box, folder):
            return False
        if not foreign.look(index, box, folder):
            foreign.look(index, box, folder)  # its own changes are known then
        return True

    def keywords(self, account: str, box: int) -> dict[int, str]:
        with self._indexes.use(account) as opened:
            return opened.index.keywords(box)

    def usage(self, account: str) -> tuple[int, int]:
        """Octets and messages."""
        with self._indexes.use(account) as opened:
            return opened.index.usage()

    def limit(self, account: str) -> int:
        """Octets that there may be; 0: any amount."""
        return self._quotas.limit(account)

    # --- changes --------------------------------------------------------------------------------------------------

    def set_flags(
        self,
        account: str,
        box: Box,
        uids: Sequence[int],
        change: FlagChange,
        keywords: Sequence[str],
        unchanged_since: int | None = None,
    ) -> tuple[list[tuple[int, int, int]], list[int]]:
        """What has changed (uid, flags, modseq), and who changed since and was left alone. File names follow."""
        with self._indexes.use(account) as opened:
            index = opened.index
            with index.change():
                bits = index.keyword_bits(box.id, keywords, create=change.how >= 0)
                whole = FlagChange(change.how, change.flags | bits)
                changed, conflicts, files = index.set_flags(box.id, uids, whole, unchanged_since)
                folder = self._indexes.folder(account, index.name_of(box.id) or box.name)
                with foreign.ours(index, box.id, folder):
                    self._rename_files(index, box, folder, changed, dict(files))
        return changed, conflicts

    def _rename_files(
        self, index: Index, box: Box, folder: Path, changed: list[tuple[int, int, int]], names: dict[int, str]
    ) -> None:
        """Flags are told in names too, as a courtesy to other programs: the index knows better."""
        new = [(uid, maildir.with_letters(names[uid], letters_of(flags))) for uid, flags, _ in changed]
        index.set_files(
            box.id,
            [(uid, name) for uid, name in new if name != names[uid] and maildir.rename(folder, names[uid], name)],
        )

    def expunge(self, account: str, uids: Iterable[int]) -> int:
        """Of INBOX; how many of them were there."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.wanted_box(INBOX)
            with index.change():
                gone, files = index.expunge(box.id, uids)
            self._remove_files(account, index, box, files)
        return len(gone)

    def expunge_deleted(self, account: str, box: Box, uids: Iterable[int] | None = None) -> int:
        """Those that are flagged so; of these alone, if any are given."""
        with self._indexes.use(account) as opened:
            index = opened.index
            with index.change():
                wanted = None if uids is None else set(uids)
                deleted = index.deleted_uids(box.id)
                gone, files = index.expunge(box.id, [uid for uid in deleted if wanted is None or uid in wanted])
            self._remove_files(account, index, box, files)
        return len(gone)

    def _remove_files(self, account: str, index: Index, box: Box, files: Sequence[str]) -> None:
        """Once the index has durably forgotten them. What cannot be removed now is at the next look."""
        if not files:
            return
        with suppress(OSError, sqlite3.Error), index.note():
            folder = self._indexes.folder(account, index.name_of(box.id) or box.name)
            with foreign.ours(index, box.id, folder):
                for file in files:
                    maildir.remove(folder, file)
            index.forget_doomed(box.id, files)

    def copy(
        self, account: str, box: Box, uids: Sequence[int], target: str, *, moves: bool
    ) -> tuple[int, list[tuple[int, int]]]:
        """The target's UIDVALIDITY, and each message's UID here and there. All or none. Raises NoSuchBox."""
        source = self._indexes.folder_now(account, box)
        made: list[tuple[str, str]] = []
        try:
            with self._indexes.use(account) as opened:
                index = opened.index
                with index.change():
                    other = index.box(target)
                    if other is None:
                        raise NoSuchBox(f"no mailbox {target}")
                    folder = self._made(index, account, target)
                    found = index.with_email_ids(box.id, uids)
                    if not moves:
                        size = sum(message.size for message, _ in found)
                        make_room(index.usage()[0], self._quotas.limit(account), size, is_delivery=False)
                    with foreign.ours(index, other.id, folder):
                        pairs = copy_messages(index, box, other, found, source, folder, made, moves=moves)
                    maildir.sync_folder(folder)
                    files: list[str] = []
                    if moves:
                        _, files = index.expunge(box.id, [uid for uid, _ in pairs])
                self._remove_files(account, index, box, files)
        except BaseException as error:
            if not is_io_error(error):
                maildir.drop(path for _, path in made)
            raise
        finally:
            maildir.drop(temporary for temporary, _ in made)
        return other.uidvalidity, pairs

    # --- mailboxes ------------------------------------------------------------------------------------------------

    def boxes(self, account: str) -> tuple[list[Box], set[str]]:
        """All of them, and the names that are subscribed."""
        with self._indexes.use(account) as opened:
            index = opened.index
            foreign.look_for_folders(index, folder_of(self._root, account) / "Maildir")
            return boxes.all_boxes(index), boxes.subscriptions(index)

    def email_ids(self, account: str, name: str) -> set[str]:
        """Which messages the mailbox has."""
        with self._indexes.use(account) as opened:
            return opened.index.email_ids(opened.index.wanted_box(name).id)

    def box(self, account: str, name: str) -> Box | None:
        with self._indexes.use(account) as opened:
            return opened.index.box(name)

    def files(self, account: str, box: Box, uids: Sequence[int]) -> list[Path]:
        """Of messages that are there."""
        folder = self._indexes.folder_now(account, box) / "cur"
        with self._indexes.use(account) as opened:
            found = [opened.index.message(box.id, uid) for uid in uids]
        return [folder / message.file for message in found if message is not None]

    def status(self, account: str, names: Sequence[str]) -> list[BoxStatus]:
        with self._indexes.use(account) as opened:
            index = opened.index
            for box in map(index.box, names):
                if box is not None:
                    self._look(account, index, box)
            return boxes.status(index, names)

    def subscribe(self, account: str, name: str, *, is_on: bool) -> None:
        with self._indexes.use(account) as opened:
            boxes.subscribe(opened.index, name, is_on=is_on)

    def create(self, account: str, name: str, special: str = "") -> Box:
        with self._indexes.use(account) as opened:
            found = boxes.create(opened.index, name, special)
            self._made(opened.index, account, name)
        return found

    def delete(self, account: str, name: str) -> None:
        with self._indexes.use(account) as opened:
            folder, aside = self._indexes.folder(account, name), None
            try:
                with opened.index.change():
                    box = boxes.delete(opened.index, name)
                    aside = maildir.put_aside(folder) if folder.exists() else None
            except BaseException as error:
                if aside is not None and not is_io_error(error):
                    aside.rename(folder)
                raise
            opened.rows.pop(box.id, None)
            if aside is not None:
                maildir.remove_folder(aside)

    def rename(self, account: str, name: str, other: str) -> None:
        """RFC 3501 6.3.5: INBOX stays, empty, and its messages move. Index and folders change together, or neither."""
        if name == INBOX:
            self.create(account, other)
            box = self.open_box(account, INBOX, takes_recent=False)
            self.copy(account, box.box, list(box.rows.uids), other, moves=True)
            return
        if other == INBOX:
            raise BoxExists("INBOX is there already")
        done: list[tuple[Path, Path]] = []
        with self._indexes.use(account) as opened:
            try:
                with opened.index.change():
                    for old, new in boxes.rename(opened.index, name, other):
                        folder, target = self._indexes.folder(account, old), self._indexes.folder(account, new)
                        if folder.exists():
                            maildir.move_folder(folder, target)
                            done.append((folder, target))
            except BaseException:
                for folder, target in reversed(done):
                    maildir.move_folder(target, folder)
                raise

    # --- folders and indexes --------------------------------------------------------------------------------------

    def traces(self, account: str, box: Box) -> Traces:
        return Traces(folder_of(self._root, account), self._indexes.folder(account, box.name))

    def _made(self, index: Index, account: str, name: str) -> Path:
        """Raises StoreError where the folder of a mailbox with messages is gone: it may come back."""
        folder = self._indexes.folder(account, name)
        if not (folder / "cur").exists():
            if index.has_messages(name):
                raise StoreError(f"the folder of {name} is gone")
            maildir.make_maildir(folder, below=self._root)
            if name != INBOX:
                (folder / "maildirfolder").touch()
        return folder

    def close(self) -> None:
        """When no call is under way any more."""
        self._indexes.close()
