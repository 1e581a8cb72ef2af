"""What an operator asks of mail, beside the running gateway: is it whole, make its index anew, how much is there."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.mailbox import checking, recovery
from gateway.mailbox.export import export
from gateway.mailbox.index import Index
from gateway.mailbox.indexes import folder_of
from gateway.mailbox.values import Summarised


class Maintenance:
    """root: has `DOMAIN/LOCAL/Maildir` and `DOMAIN/LOCAL/index.db`. All calls raise StoreError for an account that has
    no mail yet.
    """

    def __init__(self, root: Path, summarise: Callable[[bytes], Summarised]) -> None:
        self._root = root
        self._summarise = summarise

    def accounts(self) -> list[str]:
        """Those that have mail, or had."""
        found = self._root.glob("*/*/Maildir")
        return sorted(f"{path.parent.name}@{path.parent.parent.name}" for path in found if path.parent.name[0] != ".")

    def check(self, account: str, *, mends: bool, is_deep: bool) -> list[str]:
        """What is wrong, and mended if that is wanted and can be. is_deep: every message is read."""
        try:
            return self._check(account, mends=mends, is_deep=is_deep)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            return [f"it could not be looked over: {error}"]

    def _check(self, account: str, *, mends: bool, is_deep: bool) -> list[str]:
        folder = self._folder(account)
        found: list[str] = []
        with self._index(account) as index:
            damage = checking.damage(index)
            summarise = self._summarise if is_deep else None
            for fault in () if damage else checking.faults(index, folder / "Maildir", summarise):
                found.append(fault.text)
                if mends and fault.mend is not None:
                    with index.change():
                        fault.mend()
        if damage:
            found.append(f"the index is damaged: {damage}")
            if mends:
                recovery.rebuild(folder / "index.db")
        return found

    def rebuild(self, account: str) -> None:
        """Makes the index anew from the files."""
        recovery.rebuild(self._folder(account) / "index.db")

    def export(self, account: str, target: Path) -> int:
        """Of `export.export`."""
        with self._index(account) as index:
            return export(index, self._folder(account) / "Maildir", target)

    def _folder(self, account: str) -> Path:
        folder = folder_of(self._root, account)
        if not (folder / "Maildir").is_dir():
            raise StoreError(f"{account} has no mail here")
        return folder

    @contextmanager
    def _index(self, account: str) -> Iterator[Index]:
        index = Index(self._folder(account) / "index.db")
        try:
            yield index
        finally:
            index.close()
