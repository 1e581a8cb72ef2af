"""The message store: one folder a user, Maildir++ files and an index (docs/store.md).

A message is written and synced, then it gets its UID, its file its name, and both are made durable; only then is it
delivered. A crash leaves at worst a file that no index row names, or a message whose retry is known by its delivery id.
All calls block: they belong in a small pool, never on an event loop.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX, folder_name
from gateway.core.mailflags import DELETED, letters_of
from gateway.mailbox import boxes, maildir
from gateway.mailbox.boxes import BoxExists, BoxStatus, NoSuchBox
from gateway.mailbox.index import Box, Changes, Details, FlagChange, Index, StoredMessage, Summarised
from gateway.mailbox.indexes import Indexes, folder_of
from gateway.mailbox.rows import Rows
from gateway.mailbox.schema import is_io_error

MAX_SUMMARISED = 64 * 1024 * 1024  # octets of a message that are looked at to tell its structure

Summarise = Callable[[bytes], Summarised]


@dataclass(frozen=True, slots=True)
class OpenedBox:
    """rows: the session's own copy; first_recent: the UID from which on nobody has seen them."""

    box: Box
    rows: Rows
    first_recent: int
    keywords: dict[int, str]


class MessageStore:
    """root: has `DOMAIN/LOCAL/Maildir` and `DOMAIN/LOCAL/index.db`. summarise: what IMAP asks of a message."""

    def __init__(self, root: Path, summarise: Summarise) -> None:
        self._root = root
        self._summarise = summarise
        self._indexes = Indexes(root)

    # --- messages come --------------------------------------------------------------------------------------------

    def deliver(
        self, account: str, pieces: Callable[[], Iterable[bytes]], delivery_id: str, internal_date: float
    ) -> bool:
        """Store in the account's INBOX; False when this delivery id is there already."""
        return self._add(account, INBOX, pieces, 0, (), internal_date, delivery_id) is not None

    def append(
        self, account: str, name: str, pieces: Iterable[bytes], flags: int, keywords: Sequence[str], date: float
    ) -> tuple[int, int]:
        """UIDVALIDITY and UID. Raises NoSuchBox."""
        found = self._add(account, name, lambda: pieces, flags, keywords, date, "")
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
    ) -> tuple[int, int] | None:
        """None: the delivery is there already."""
        with self._indexes.use(account) as opened:  # before anything is written
            if delivery_id and opened.index.has_delivery(delivery_id):
                return None
            if opened.index.box(name) is None:
                raise NoSuchBox(f"no mailbox {name}")
        folder = self._made(account, name)
        temporary, size = maildir.write_temporary(folder, pieces())
        final = ""
        try:
            told = self._told(temporary, size)
            with self._indexes.use(account) as opened:
                index = opened.index
                if delivery_id and index.has_delivery(delivery_id):
                    temporary.unlink()
                    return None
                with index.change():
                    box = index.box(name)
                    if box is None:
                        raise NoSuchBox(f"no mailbox {name}")
                    flags |= index.keyword_bits(box.id, keywords, create=True)
                    uid, modseq = index.take_uids(box.id, 1)
                    final = maildir.final_name(temporary.name, size, uid, letters_of(flags))
                    maildir.move_into_place(folder, temporary, final)
                    message = StoredMessage(uid, size, final, date, flags)
                    index.add(box.id, modseq, message, told, delivery_id or temporary.name)
                    if delivery_id:
                        index.note_delivery(delivery_id)
            return box.uidvalidity, uid
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if final and not is_io_error(error):  # after an I/O error the commit may yet stand
                (folder / "cur" / final).unlink(missing_ok=True)
            raise

    def _told(self, path: Path, size: int) -> Summarised | None:
        return self._summarise(path.read_bytes()) if size <= MAX_SUMMARISED else None

    # --- what is there --------------------------------------------------------------------------------------------

    def snapshot(self, account: str) -> tuple[int, list[StoredMessage]]:
        """UIDVALIDITY and the messages of the INBOX now."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.wanted_box(INBOX)
            return box.uidvalidity, index.messages(box.id)

    def open_box(self, account: str, name: str, *, takes_recent: bool) -> OpenedBox:
        """What a session sees of a mailbox from now on. Raises NoSuchBox."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.box(name)
            if box is None:
                raise NoSuchBox(f"no mailbox {name}")
            first = index.take_recent(box.id, box.uidnext) if takes_recent else box.recent
            rows = opened.rows.setdefault(box.id, Rows())
            changes = index.changes(box.id, rows.modseq)
            if changes is None:
                raise NoSuchBox(f"no mailbox {name}")
            rows.apply(changes)
            return OpenedBox(box, rows.copy(), first, index.keywords(box.id))

    def changes(self, account: str, box: int, since: int, *, takes_recent: bool) -> tuple[Changes, int] | None:
        """And the first UID that is recent to who asks. None: the mailbox is gone."""
        with self._indexes.use(account) as opened:
            index = opened.index
            found = index.changes(box, since)
            if found is None:
                return None
            is_asked = bool(found.rows) and takes_recent
            return found, index.take_recent(box, found.uidnext) if is_asked else found.uidnext

    def keywords(self, account: str, box: int) -> dict[int, str]:
        with self._indexes.use(account) as opened:
            return opened.index.keywords(box)

    def details(self, account: str, box: Box, uids: Sequence[int]) -> dict[int, Details]:
        """Of those that are there; what is not worked out yet is now."""
        with self._indexes.use(account) as opened:
            index = opened.index
            found = index.details(box.id, uids)
            missing = [index.message(box.id, uid) for uid in uids if uid not in found]
        for message in missing:
            if message is not None:
                self._tell(account, box, message)
        if any(message is not None for message in missing):
            with self._indexes.use(account) as opened:
                found = opened.index.details(box.id, uids)
        return found

    def _tell(self, account: str, box: Box, message: StoredMessage) -> None:
        with suppress(FileNotFoundError), self.open_message(account, message, box) as file:
            told = self._summarise(file.read(MAX_SUMMARISED))
            with self._indexes.use(account) as opened:
                index = opened.index
                with index.change():
                    if index.message(box.id, message.uid) is not None:
                        index.tell(box.id, message.uid, told)

    def sizes_and_dates(self, account: str, box: int, first: int, last: int) -> dict[int, tuple[int, float]]:
        with self._indexes.use(account) as opened:
            return opened.index.sizes_and_dates(box, first, last)

    def open_message(self, account: str, message: "StoredMessage | Details", box: Box | None = None) -> BinaryIO:
        """Without a box, of INBOX. Raises FileNotFoundError when another session removed it."""
        folder = self._folder_of(account, INBOX) if box is None else self._folder_now(account, box)
        try:
            return (folder / "cur" / message.file).open("rb")
        except FileNotFoundError:
            path = maildir.find(folder, message.file)
            if path is None:
                raise
            return path.open("rb")

    def usage(self, account: str) -> tuple[int, int]:
        """Octets and messages."""
        with self._indexes.use(account) as opened:
            return opened.index.usage()

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
                names = dict(files)
                new = {uid: maildir.with_letters(names[uid], letters_of(flags)) for uid, flags, _ in changed}
                for uid, name in new.items():
                    if name != names[uid]:
                        index.set_file(box.id, uid, name)
            folder = self._folder_of(account, index.name_of(box.id) or box.name) / "cur"
            for uid, name in new.items():
                if name != names[uid]:
                    with suppress(OSError):  # a courtesy to other programs: the index knows better
                        (folder / names[uid]).rename(folder / name)
        return changed, conflicts

    def expunge(self, account: str, uids: Iterable[int]) -> int:
        """Of INBOX; how many of them were there."""
        with self._indexes.use(account) as opened:
            index = opened.index
            box = index.wanted_box(INBOX)
            with index.change():
                gone, files = index.expunge(box.id, uids)
        self._remove_files(account, box, files)
        return len(gone)

    def expunge_deleted(self, account: str, box: Box, uids: Iterable[int] | None = None) -> int:
        """Those that are flagged so; of these alone, if any are given."""
        with self._indexes.use(account) as opened:
            index = opened.index
            with index.change():
                rows = index.connection.execute(
                    "SELECT uid FROM msg WHERE box = ? AND flags & ? <> 0", [box.id, DELETED]
                ).fetchall()
                wanted = None if uids is None else set(uids)
                gone, files = index.expunge(box.id, [uid for (uid,) in rows if wanted is None or uid in wanted])
        self._remove_files(account, box, files)
        return len(gone)

    def _remove_files(self, account: str, box: Box, files: Iterable[str]) -> None:
        folder = self._folder_now(account, box)
        for file in files:
            try:
                (folder / "cur" / file).unlink()
            except FileNotFoundError:
                path = maildir.find(folder, file)
                if path is not None:
                    path.unlink(missing_ok=True)

    def copy(
        self, account: str, box: Box, uids: Sequence[int], target: str, *, moves: bool
    ) -> tuple[int, list[tuple[int, int]]]:
        """The target's UIDVALIDITY, and each message's UID here and there. All or none. Raises NoSuchBox."""
        source = self._folder_now(account, box)
        made: list[Path] = []
        try:
            with self._indexes.use(account) as opened:
                index = opened.index
                with index.change():
                    other = index.box(target)
                    if other is None:
                        raise NoSuchBox(f"no mailbox {target}")
                    folder = self._made(account, target)
                    pairs = self._copied(index, box, other, uids, source, folder, made)
                    maildir.sync_folder(folder)
                    files: list[str] = []
                    if moves:
                        _, files = index.expunge(box.id, [uid for uid, _ in pairs])
        except BaseException as error:
            if not is_io_error(error):
                for path in made:
                    path.unlink(missing_ok=True)
            raise
        self._remove_files(account, box, files)
        return other.uidvalidity, pairs

    def _copied(
        self, index: Index, box: Box, other: Box, uids: Sequence[int], source: Path, folder: Path, made: list[Path]
    ) -> list[tuple[int, int]]:
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
            name = maildir.final_name(maildir.new_unique(), message.size, uid, letters_of(flags))
            maildir.link_into_place(path, folder, name)
            made.append(folder / "cur" / name)
            index.add(
                other.id, modseq, StoredMessage(uid, message.size, name, message.internal_date, flags), None,
                index.email_id(box.id, message.uid),
            )  # fmt: skip
            index.connection.execute(
                "INSERT INTO meta(box, uid, env, bs, body, hdr, parts) SELECT ?, ?, env, bs, body, hdr, parts FROM meta"
                " WHERE box = ? AND uid = ?",
                [other.id, uid, box.id, message.uid],
            )
            pairs.append((message.uid, uid))
        return pairs

    # --- mailboxes ------------------------------------------------------------------------------------------------

    def boxes(self, account: str) -> tuple[list[Box], set[str]]:
        """All of them, and the names that are subscribed."""
        with self._indexes.use(account) as opened:
            index = opened.index
            return boxes.all_boxes(index), boxes.subscriptions(index)

    def status(self, account: str, names: Sequence[str]) -> list[BoxStatus]:
        with self._indexes.use(account) as opened:
            return boxes.status(opened.index, names)

    def subscribe(self, account: str, name: str, *, is_on: bool) -> None:
        with self._indexes.use(account) as opened:
            boxes.subscribe(opened.index, name, is_on=is_on)

    def create(self, account: str, name: str, special: str = "") -> Box:
        with self._indexes.use(account) as opened:
            found = boxes.create(opened.index, name, special)
            self._made(account, name)
        return found

    def delete(self, account: str, name: str) -> None:
        with self._indexes.use(account) as opened:
            box = boxes.delete(opened.index, name)
            opened.rows.pop(box.id, None)
            maildir.remove_folder(self._folder_of(account, name))

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
                        folder, target = self._folder_of(account, old), self._folder_of(account, new)
                        if folder.exists():
                            maildir.move_folder(folder, target)
                            done.append((folder, target))
            except BaseException:
                for folder, target in reversed(done):
                    maildir.move_folder(target, folder)
                raise

    # --- folders and indexes --------------------------------------------------------------------------------------

    def watched(self, account: str) -> tuple[int, int]:
        """Something that changes whenever the account's mail does, whichever process changes it."""
        try:
            found = (folder_of(self._root, account) / "index.db-wal").stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_size

    def _folder_of(self, account: str, name: str) -> Path:
        return folder_of(self._root, account) / "Maildir" / folder_name(name)

    def _folder_now(self, account: str, box: Box) -> Path:
        """Another session may have renamed it. Raises FileNotFoundError when it is gone."""
        with self._indexes.use(account) as opened:
            name = opened.index.name_of(box.id)
        if name is None:
            raise FileNotFoundError(f"mailbox {box.name} is gone")
        return self._folder_of(account, name)

    def _made(self, account: str, name: str) -> Path:
        folder = self._folder_of(account, name)
        if not (folder / "cur").exists():
            maildir.make_maildir(folder, below=self._root)
            if name != INBOX:
                (folder / "maildirfolder").touch()
        return folder

    def close(self) -> None:
        """When no call is under way any more."""
        self._indexes.close()
