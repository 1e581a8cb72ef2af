"""What other programs did to a user's folders: messages they brought, flags they set in names, files they removed.

Which folders have changed is told by their times. What this program does to them itself is noted with the new time
(`ours`), so that a mailbox is listed only after a stranger's change; one that falls into the same tick of the clock
(4 ms) is seen with the next.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.core.foldernames import folder_name, name_of_folder
from gateway.core.mailflags import bits_of_letters, letters_of
from gateway.mailbox import boxes, maildir
from gateway.mailbox.index import FlagChange, Index, StoredMessage

BATCH = 100  # messages that are taken in at once
SETTLED_NS = 20_000_000  # a folder's time that is younger may stand still while names change


@dataclass(frozen=True, slots=True)
class _Row:
    uid: int
    file: str
    flags: int


@contextmanager
def ours(index: Index, box: int, folder: Path) -> Iterator[None]:
    """What is done to cur/ within is this program's own. Within a change."""
    before = maildir.changed_at(folder, "cur")
    yield
    index.connection.execute(
        "UPDATE box SET looked = ? WHERE id = ? AND looked = ?", [maildir.changed_at(folder, "cur"), box, before]
    )


def is_changed(index: Index, box: int, folder: Path) -> bool:
    looked = index.connection.execute("SELECT looked, looked_new FROM box WHERE id = ?", [box]).fetchone()
    return looked is not None and looked != (maildir.changed_at(folder, "cur"), maildir.changed_at(folder, "new"))


def look(index: Index, box: int, folder: Path) -> bool:
    """Takes in what is different; False: there may be more. Under the lock of a change nobody of ours is half done."""
    times = maildir.changed_at(folder, "cur"), maildir.changed_at(folder, "new")
    with index.change():
        has_changed = _Look(index, box, folder).run()
        is_settled = max(times) < time.time_ns() - SETTLED_NS
        if not has_changed and is_settled:
            index.connection.execute("UPDATE box SET looked = ?, looked_new = ? WHERE id = ?", [*times, box])
    return not has_changed


class _Look:
    """One mailbox, once."""

    def __init__(self, index: Index, box: int, folder: Path) -> None:
        self._index, self._box, self._folder = index, box, folder
        rows = index.connection.execute("SELECT uid, file, flags FROM msg WHERE box = ?", [box])
        self._rows = {row[1].partition(":")[0]: _Row(*row) for row in rows}
        self._there = maildir.listing(folder, "cur")

    def run(self) -> bool:
        """Was anything different?"""
        flags = [self._take_flags(base) for base in self._rows.keys() & self._there.keys()]
        removed = self._take_removals()
        left = self._unknown()
        brought = [("cur", base, name) for base, name in left.items()]
        brought += [("new", base, name) for base, name in maildir.listing(self._folder, "new").items()]
        taken = 0
        for part, base, name in sorted(brought, key=self._came):
            taken += self._take_message(part, base, name)
            if taken == BATCH:
                break
        if taken:
            maildir.sync_folder(self._folder)
        return any(flags) or removed or taken > 0

    def _take_flags(self, base: str) -> bool:
        """What differs from the name that this program wrote last; its own changes since stay."""
        row, name = self._rows[base], self._there[base]
        if name == row.file:
            return False
        before, now = (bits_of_letters(each.partition(":2,")[2]) for each in (row.file, name))
        flags = (row.flags | now & ~before) & ~(before & ~now)
        if flags != row.flags:
            self._index.set_flags(self._box, [row.uid], FlagChange(0, flags))
        self._index.set_files(self._box, [(row.uid, name)])
        return True

    def _take_removals(self) -> bool:
        missing = self._rows.keys() - self._there.keys()
        if missing:  # a name that changes while a folder is listed may be seen neither before nor after
            again = maildir.listing(self._folder, "cur")
            missing -= again.keys()
        self._index.expunge(self._box, sorted(self._rows[base].uid for base in missing))
        return bool(missing)

    def _unknown(self) -> dict[str, str]:
        """Names in cur that no row has; what this program left there when it was killed goes."""
        left = {base: name for base, name in self._there.items() if base not in self._rows}
        for base, name in list(left.items()):
            uid = maildir.uid_of(base)
            if uid is not None and self._is_left_over(base, name, uid):
                (self._folder / "cur" / name).unlink(missing_ok=True)
                (self._folder / "tmp" / maildir.unique_of(base)).unlink(missing_ok=True)
                del left[base]
        return left

    def _is_left_over(self, base: str, name: str, uid: int) -> bool:
        """Of a message that was never whole, or that went. One brought back from a backup is younger than its end."""
        temporary = self._folder / "tmp" / maildir.unique_of(base)
        with suppress(FileNotFoundError):
            found = (self._folder / "cur" / name).stat()
            if self._index.was_expunged(self._box, uid, base, found.st_ctime):
                return True
            return temporary.stat().st_ino == found.st_ino
        return False

    def _came(self, each: tuple[str, str, str]) -> tuple[int, str]:
        part, base, name = each
        try:
            return (self._folder / part / name).stat().st_mtime_ns, base
        except OSError:
            return 0, base

    def _take_message(self, part: str, base: str, name: str) -> bool:
        """Its line ends are mended, then it gets a UID and a name of ours; False when it cannot be read or is gone."""
        path = self._folder / part / name
        try:
            size = maildir.mend_line_ends(path, self._folder)
            date = path.stat().st_mtime
        except OSError:
            return False
        uid, modseq = self._index.take_uids(self._box, 1)
        flags = bits_of_letters(name.partition(":2,")[2]) if part == "cur" else 0
        unique = maildir.unique_of(base) if maildir.is_plain(base) else maildir.new_unique()
        final = maildir.final_name(unique, size, uid, letters_of(flags))
        path.rename(self._folder / "cur" / final)
        self._index.add(self._box, modseq, StoredMessage(uid, size, final, date, flags), None, unique)
        return True


def look_for_folders(index: Index, root: Path) -> None:
    """root: the user's Maildir. Mailboxes that others made become known; a removal that was cut short is ended, or
    undone where the mailbox is still there.
    """
    there = maildir.folders(root)
    for folder in maildir.put_aside_before(root):
        with index.change():  # nobody of ours is half done
            name = name_of_folder(maildir.name_before(folder))
            if name is not None and index.box(name) is not None and not (root / folder_name(name)).exists():
                maildir.move_folder(folder, root / folder_name(name))
            else:
                maildir.remove_folder(folder)
    known = {folder_name(box.name) for box in boxes.all_boxes(index)}
    for folder_there in sorted(there - known):
        name = name_of_folder(folder_there)
        if name is not None:
            maildir.make_maildir(root / folder_there, below=root)
            with suppress(boxes.BoxRefused):
                boxes.take_in(index, name)
