"""The indexes of many accounts: some kept open, each for one thread at a time."""

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gateway.core.foldernames import folder_name
from gateway.mailbox import maildir, recovery
from gateway.mailbox.index import Index
from gateway.mailbox.rows import Rows
from gateway.mailbox.schema import is_corrupt
from gateway.mailbox.values import Box

MAX_OPEN = 64  # indexes kept open


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """inode: which file it is; rows: of mailboxes that were looked at, by id."""

    index: Index
    inode: int
    rows: dict[int, Rows] = field(default_factory=dict)


@dataclass(slots=True)
class _Seat:
    opened: OpenIndex | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class Indexes:
    """root: holds `DOMAIN/LOCAL/index.db`. on_rebuild: told of an account whose index was damaged, and whether it was
    made anew here.
    """

    def __init__(self, root: Path, on_rebuild: Callable[[str, bool], None]) -> None:
        self._root = root
        self._on_rebuild = on_rebuild
        self._seats: OrderedDict[str, _Seat] = OrderedDict()
        self._table = threading.Lock()

    @contextmanager
    def use(self, account: str) -> Iterator[OpenIndex]:
        """The account's index as it is on disk now: its folder may have been set aside and made anew."""
        with self._table:
            seat = self._seats.pop(account, None) or _Seat()
            self._seats[account] = seat
            seat.users += 1
            self._close_some()
        try:
            with seat.lock:
                try:
                    yield self._current(account, seat)
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if is_corrupt(error):
                        self._rebuild(account, seat)
                    if isinstance(error, UnicodeDecodeError):  # of SQLite's complaint: for callers it is damage too
                        raise sqlite3.DatabaseError(f"{account}: names in the index are no UTF-8") from error
                    raise
        finally:
            with self._table:
                seat.users -= 1

    def folder(self, account: str, name: str) -> Path:
        """Of a mailbox."""
        return folder_of(self._root, account) / "Maildir" / folder_name(name)

    def folder_now(self, account: str, box: Box) -> Path:
        """Another session may have renamed it. Raises FileNotFoundError when it is gone."""
        with self.use(account) as opened:
            name = opened.index.name_of(box.id)
        if name is None:
            raise FileNotFoundError(f"mailbox {box.name} is gone")
        return self.folder(account, name)

    def __len__(self) -> int:
        return len(self._seats)

    def _close_some(self) -> None:
        """Keep at most MAX_OPEN, never closing one in use. Under the table's lock."""
        for account in list(self._seats)[: max(0, len(self._seats) - MAX_OPEN)]:
            if not self._seats[account].users:
                opened = self._seats.pop(account).opened
                if opened is not None:
                    opened.index.close()

    def _current(self, account: str, seat: _Seat) -> OpenIndex:
        folder = folder_of(self._root, account)
        try:
            inode = os.stat(f"{folder}/index.db").st_ino
        except FileNotFoundError:
            inode = 0
        opened = seat.opened
        if opened is None or inode != opened.inode:
            if opened is not None:
                seat.opened = None
                opened.index.close()
            path = folder / "index.db"
            if not inode or os.path.isdir(f"{folder}/Maildir/cur"):  # one that is gone may come back
                maildir.make_maildir(folder / "Maildir", below=self._root)
            index = Index(path)
            opened = seat.opened = OpenIndex(index, path.stat().st_ino)
        return opened

    def _rebuild(self, account: str, seat: _Seat) -> None:
        """What was wished is refused this time; sessions with mailboxes open find them gone."""
        path = folder_of(self._root, account) / "index.db"
        opened, seat.opened = seat.opened, None
        if opened is not None:
            opened.index.close()
        self._on_rebuild(account, recovery.rebuild(path, path.stat().st_ino if opened is None else opened.inode))

    def close(self) -> None:
        """When no call is under way any more."""
        with self._table:
            for seat in self._seats.values():
                if seat.opened is not None:
                    seat.opened.index.close()
            self._seats.clear()


@lru_cache(maxsize=4096)
def folder_of(root: Path, account: str) -> Path:
    """Local parts come from the accounts database and are checked there; a slash or a dot-name must never get here."""
    local, _, domain = account.rpartition("@")
    if not local or not domain or any(part in (".", "..") or "/" in part or "\0" in part for part in (local, domain)):
        raise ValueError(f"no folder for account {account!r}")
    return root / domain / local
