"""What other programs did to a user's folders: messages they brought, flags they set in names, files they removed.

Which folders have changed is told by their times. What this program does to them itself is noted with the new time
(`ours`), so that a mailbox is listed only after a stranger's change. No file is ever removed here but one that is known
to be this program's own leaving: half made, or doomed in the index.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.core.foldernames import folder_name, name_of_folder
from gateway.core.mailflags import bits_of_letters, letters_of
from gateway.mailbox import boxes, maildir
from gateway.mailbox.index import Index
from gateway.mailbox.traces import SETTLED_NS
from gateway.mailbox.values import FlagChange, StoredMessage

BATCH = 20  # messages that are taken in at once
HIDDEN_S = 0.05  # what this program does in less hides a stranger's change in the middle until the next
LOOK_S = 0.3
MAX_TAKEN = 1 << 30  # octets of a message that is taken in
MAX_FOLDERS = 2000  # of other programs that are looked at


@contextmanager
def ours(index: Index, box: int, folder: Path) -> Iterator[None]:
    """What is done to cur/ within is this program's own. Within a change. Where it took so long that it may hide a
    stranger's change, the folder is looked at again.
    """
    before, started = maildir.changed_at(folder, "cur"), time.monotonic()
    yield
    if time.monotonic() - started < HIDDEN_S:
        index.connection.execute(
            "UPDATE box SET looked = ? WHERE id = ? AND looked = ?", [maildir.changed_at(folder, "cur"), box, before]
        )


def is_changed(index: Index, box: int, folder: Path) -> bool:
    looked = index.connection.execute("SELECT looked, looked_new FROM box WHERE id = ?", [box]).fetchone()
    return looked is not None and looked != (maildir.changed_at(folder, "cur"), maildir.changed_at(folder, "new"))


def look(index: Index, box: int, folder: Path) -> bool:
    """Takes in what is different, for LOOK_S or a little more; False: there may be more. A folder that is gone is left
    alone: it may come back.
    """
    times = maildir.changed_at(folder, "cur"), maildir.changed_at(folder, "new")
    if times[0] < 0:
        return True
    is_settled = max(times) < time.time_ns() - SETTLED_NS
    until = time.monotonic() + LOOK_S
    brought: list[tuple[str, str, str]] = []
    with index.change():  # nobody of ours is half done
        found = _Look(index, box, folder)
        has_changed = found.take_changes(is_settled=is_settled and times[0] == maildir.changed_at(folder, "cur"))
        brought = found.brought()
        if not has_changed and not brought and is_settled:
            index.connection.execute("UPDATE box SET looked = ?, looked_new = ? WHERE id = ?", [*times, box])
            return True
    has_taken = False
    for start in range(0, len(brought), BATCH):
        if time.monotonic() > until:
            break
        with index.change():
            has_taken |= found.take_messages(brought[start : start + BATCH])
    # What cannot be taken in now is tried again at the next look.
    return not has_changed and not has_taken


class _Look:
    """One mailbox, as it is under the lock of a change."""

    def __init__(self, index: Index, box: int, folder: Path) -> None:
        self._index, self._box, self._folder = index, box, folder
        self._rows = {message.file.partition(":")[0]: message for message in index.messages(box)}
        self._there = maildir.listing(folder, "cur")

    def take_changes(self, *, is_settled: bool) -> bool:
        """Flags and removals. Was there anything, or may there be? is_settled: no name has changed for a while."""
        flags = [self._take_flags(base) for base in self._rows.keys() & self._there.keys()]
        missing = self._rows.keys() - self._there.keys()
        if not missing:
            return any(flags)
        # A name that changes while a folder is listed may be seen neither before nor after.
        at = maildir.changed_at(self._folder, "cur")
        missing -= maildir.listing(self._folder, "cur").keys()
        if is_settled and not any(flags) and at == maildir.changed_at(self._folder, "cur"):
            self._index.expunge(self._box, sorted(self._rows[base].uid for base in missing), dooms=False)
        return True

    def brought(self) -> list[tuple[str, str, str]]:
        """Part of the folder, base and name of what no row has, as old as names say; this program's own leavings go."""
        doomed = self._index.doomed(self._box)
        left: list[tuple[str, str, str]] = []
        for base, name in self._there.items():
            if base in self._rows:
                continue
            if base in doomed or self._is_half_made(base, name):
                (self._folder / "cur" / name).unlink(missing_ok=True)
                (self._folder / "tmp" / maildir.unique_of(base)).unlink(missing_ok=True)
            else:
                left.append(("cur", base, name))
        if doomed:
            self._index.forget_doomed(self._box, doomed - self._rows.keys())
        left += [("new", base, name) for base, name in maildir.listing(self._folder, "new").items()]
        return sorted(left, key=lambda each: (maildir.time_of(each[1]), each[1]))

    def _is_half_made(self, base: str, name: str) -> bool:
        """Its name in tmp/ is there still, of the same file: the commit that would have kept it never came."""
        return maildir.uid_of(base) is not None and maildir.is_half_made(self._folder, base, name)

    def take_messages(self, brought: Iterable[tuple[str, str, str]]) -> bool:
        taken = [self._take_message(*each) for each in brought]
        if any(taken):
            maildir.sync_folder(self._folder)
        return any(taken)

    def _take_flags(self, base: str) -> bool:
        """What differs from the name that this program wrote last; its own changes since stay."""
        row, name = self._rows[base], self._there[base]
        if name == row.file:
            return False
        before, now = (bits_of_letters(each.partition(":2,")[2]) for each in (row.file, name))
        flags = (row.flags | now & ~before) & ~(before & ~now)
        if flags != row.flags:
            self._index.set_flags(self._box, [row.uid], FlagChange(0, flags))
        if not name.isascii():
            maildir.rename(self._folder, name, name := maildir.with_letters(base, letters_of(now)))
        self._index.set_files(self._box, [(row.uid, name)])
        return True

    def _take_message(self, part: str, base: str, name: str) -> bool:
        """Its line ends are mended, then it gets a UID and a name of ours; False when it cannot be read or is gone."""
        path = self._folder / part / name
        try:
            if path.lstat().st_size > MAX_TAKEN:
                return False  # told by `store check`
            size = maildir.mend_line_ends(path, self._folder)
            date = maildir.date_of(path)
        except OSError:
            return False
        uid, modseq = self._index.take_uids(self._box, 1)
        flags = bits_of_letters(name.partition(":2,")[2]) if part == "cur" else 0
        unique = maildir.unique_of(base) if maildir.is_plain(base) else maildir.new_unique()
        final = maildir.final_name(unique, size, uid, letters_of(flags))
        try:
            path.rename(self._folder / "cur" / final)
        except OSError:
            return False
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
    room = boxes.MAX_BOXES - len(known)
    for unknown in sorted(there - known)[:MAX_FOLDERS]:
        name = name_of_folder(unknown)
        if name is None or room <= 0:
            continue
        with suppress(boxes.BoxRefused, OSError):  # one that cannot be had is told by `store check`
            maildir.make_maildir(root / unknown, below=root)
            boxes.take_in(index, name)
            room -= 1
