"""The message store: one folder a user, Maildir++ files and an index (docs/store.md).

Delivery: write and sync the file; take a UID; rename and sync the folder; insert; commit; only then is it delivered.
A crash leaves at worst a file that no index row names, or a message whose retry is known by its delivery id. All
calls block: they belong in a small pool, never on an event loop.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gateway.mailbox import maildir
from gateway.mailbox.index import Index, StoredMessage, is_io_error

INBOX = "INBOX"
MAX_OPEN = 64  # indexes kept open


@dataclass(slots=True)
class _Opened:
    """index: None until its first user opens it; inode: which file it is."""

    index: Index | None = None
    inode: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class MessageStore:
    """root: holds `DOMAIN/LOCAL/Maildir` and `DOMAIN/LOCAL/index.db`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, _Opened] = OrderedDict()
        self._table = threading.Lock()

    def deliver(
        self, account: str, pieces: Callable[[], Iterable[bytes]], delivery_id: str, internal_date: float
    ) -> bool:
        """Store in the account's INBOX; False when this delivery id is there already."""
        folder = self._folder(account) / "Maildir"
        with self._index(account) as index:
            if index.has_delivery(delivery_id):
                return False
            temporary, size = maildir.write_temporary(folder, pieces())
            name = ""
            try:
                index.begin()
                uid = index.next_uid(INBOX)
                name = maildir.final_name(temporary, size, uid)
                maildir.move_into_place(folder, temporary, name)
                index.add(INBOX, StoredMessage(uid, size, name, internal_date), delivery_id)
                index.commit()
            except BaseException as error:
                index.rollback()
                temporary.unlink(missing_ok=True)
                if name and not is_io_error(error):  # after an I/O error the commit may yet stand
                    (folder / "cur" / name).unlink(missing_ok=True)
                raise
        return True

    def snapshot(self, account: str) -> tuple[int, list[StoredMessage]]:
        """UIDVALIDITY and the messages of the INBOX now."""
        with self._index(account) as index:
            return index.uidvalidity(INBOX), index.messages(INBOX)

    def open_message(self, account: str, message: StoredMessage) -> BinaryIO:
        """Raises FileNotFoundError when another session removed it."""
        folder = self._folder(account) / "Maildir"
        path = folder / "cur" / message.file
        try:
            return path.open("rb")
        except FileNotFoundError:
            # Another program may have changed the flags at the end of the name.
            base = message.file.partition(":")[0]
            for other in (folder / "cur").glob(f"{base}*"):
                return other.open("rb")
            raise

    def expunge(self, account: str, uids: list[int]) -> int:
        with self._index(account) as index:
            files = index.expunge(INBOX, uids)
        folder = self._folder(account) / "Maildir" / "cur"
        for name in files:
            try:
                (folder / name).unlink()
            except FileNotFoundError:  # another program may have changed the flags at the end of the name
                for path in folder.glob(f"{name.partition(':')[0]}:*"):
                    path.unlink(missing_ok=True)
        return len(files)

    def _folder(self, account: str) -> Path:
        """Local parts come from the accounts database and are checked there; a slash or a dot-name must never get
        here.
        """
        local, _, domain = account.rpartition("@")
        if (
            not local
            or not domain
            or any(part in (".", "..") or "/" in part or "\0" in part for part in (local, domain))
        ):
            raise ValueError(f"no folder for account {account!r}")
        return self._root / domain / local

    @contextmanager
    def _index(self, account: str) -> Iterator[Index]:
        with self._table:
            opened = self._open.pop(account, None) or _Opened()
            self._open[account] = opened
            opened.users += 1
            self._close_some()
        try:
            with opened.lock:
                yield self._current(account, opened)
        finally:
            with self._table:
                opened.users -= 1

    def _close_some(self) -> None:
        """Keep at most MAX_OPEN, never closing one in use. Under the table's lock."""
        for account in list(self._open)[: max(0, len(self._open) - MAX_OPEN)]:
            if not self._open[account].users:
                index = self._open.pop(account).index
                if index is not None:
                    index.close()

    def _current(self, account: str, opened: _Opened) -> Index:
        """The account's index as it is on disk now: its folder may have been set aside and made anew."""
        path = self._folder(account) / "index.db"
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            inode = 0
        if opened.index is None or inode != opened.inode:
            if opened.index is not None:
                opened.index.close()
            maildir.make_maildir(path.parent / "Maildir", below=self._root)
            opened.index = Index(path)
            opened.inode = path.stat().st_ino
        return opened.index

    def close(self) -> None:
        """When no call is under way any more."""
        with self._table:
            for opened in self._open.values():
                if opened.index is not None:
                    opened.index.close()
            self._open.clear()
