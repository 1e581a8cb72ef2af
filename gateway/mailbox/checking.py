"""Are a user's index and files one? What is not is said in words, and mended where that is wanted.

What other programs did is taken in first, so nothing of that is a fault. A file whose size has changed is another
message now: the old one is expunged, the new one gets a UID of its own.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core.foldernames import INBOX, folder_name, name_of_folder
from gateway.mailbox import boxes, foreign, headings, maildir
from gateway.mailbox.index import Index
from gateway.mailbox.values import MAX_SUMMARISED, Box, Summarised

LEFT_S = 36 * 3600.0  # a file in tmp that is older was given up (as Maildir's readers have it)


@dataclass(frozen=True, slots=True)
class Fault:
    """mend: None where nothing can be done by itself. Called within a change."""

    text: str
    mend: Callable[[], object] | None


def damage(index: Index) -> str:
    """What SQLite finds wrong with the file; "": nothing."""
    try:
        (found,) = index.connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else str(found)


def faults(index: Index, root: Path, summarise: Callable[[bytes], Summarised] | None) -> Iterator[Fault]:
    """root: the user's Maildir. summarise: what is kept of each message is worked out again and compared."""
    yield from _folders(index, root)
    for box in boxes.all_boxes(index):
        folder = root / folder_name(box.name)
        while foreign.is_changed(index, box.id, folder) and not foreign.look(index, box.id, folder):
            pass
        if not (folder / "cur").is_dir():
            if index.has_messages(box.name):
                yield Fault(f"{box.name}: its folder is gone", lambda box=box: _emptied(index, box))  # type: ignore[misc]
            continue
        known = {message.file.partition(":")[0] for message in index.messages(box.id)}
        left = [f"new/{name}" for name in maildir.listing(folder, "new").values()]
        left += [f"cur/{name}" for base, name in maildir.listing(folder, "cur").items() if base not in known]
        for name in sorted(left):
            yield Fault(f"{box.name}: {name} could not be taken in", None)
        yield from _messages(index, box, folder)
        yield from _left(box, folder)
        if summarise is not None:
            yield from _summaries(index, box, folder, summarise)
    yield from _sums(index)


def _folders(index: Index, root: Path) -> Iterator[Fault]:
    foreign.look_for_folders(index, root)
    for folder in sorted(maildir.folders(root)):
        name = name_of_folder(folder)
        if name is None or index.box(name) is None:
            yield Fault(f"{folder}: no mailbox has this folder", None)
    for aside in sorted(root.glob("aside-*")):
        yield Fault(f"{aside.name}: was in the way of a mailbox that was renamed", None)


def _messages(index: Index, box: Box, folder: Path) -> Iterator[Fault]:
    execute = index.connection.execute
    last_uid, last_modseq = execute("SELECT max(uid), max(modseq) FROM msg WHERE box = ?", [box.id]).fetchone()
    current = index.wanted_box(box.name)
    if last_uid is not None and (last_uid >= current.uidnext or last_modseq > current.modseq):
        yield Fault(
            f"{box.name}: UIDNEXT or HIGHESTMODSEQ is behind its messages",
            lambda: execute(
                "UPDATE box SET uidnext = max(uidnext, ?), modseq = max(modseq, ?) WHERE id = ?",
                [last_uid + 1, last_modseq + 1, box.id],
            ),
        )
    for message in index.messages(box.id):
        path = folder / "cur" / message.file
        try:
            size = path.stat().st_size
        except OSError as error:
            yield Fault(f"{box.name}: message {message.uid}: {error.strerror}: {message.file}", None)
            continue
        if size != message.size:
            text = f"{box.name}: message {message.uid} has {size} octets in its file, {message.size} were stored"
            yield Fault(text, lambda path=path, uid=message.uid: _replaced(index, box, path, uid))  # type: ignore[misc]
    for table, what in (("meta", "summaries"), ("heading", "headings")):
        orphans = f"FROM {table} WHERE box = ? AND uid NOT IN (SELECT uid FROM msg WHERE msg.box = {table}.box)"  # noqa: S608  # constants
        (count,) = execute(f"SELECT count(*) {orphans}", [box.id]).fetchone()
        if count:
            yield Fault(
                f"{box.name}: {count} {what} of messages that are not there",
                lambda orphans=orphans: execute(f"DELETE {orphans}", [box.id]),  # type: ignore[misc]
            )


def _replaced(index: Index, box: Box, path: Path, uid: int) -> None:
    index.expunge(box.id, [uid], dooms=False)
    path.rename(path.with_name(f"{maildir.new_unique()}:{path.name.partition(':')[2]}"))


def _left(box: Box, folder: Path) -> Iterator[Fault]:
    now = time.time()
    for path in sorted((folder / "tmp").glob("*")):
        if path.is_file() and path.stat().st_mtime < now - LEFT_S:
            yield Fault(f"{box.name}: tmp/{path.name} was given up", path.unlink)


def _summaries(index: Index, box: Box, folder: Path, summarise: Callable[[bytes], Summarised]) -> Iterator[Fault]:
    for message in index.messages(box.id):
        kept = index.details(box.id, [message.uid]).found.get(message.uid)
        path = maildir.find(folder, message.file)
        if kept is None or path is None:
            continue
        with path.open("rb") as file:
            fresh = summarise(file.read(MAX_SUMMARISED))
        if (kept.envelope, kept.structure, kept.body, kept.header, kept.places) != (
            fresh.envelope, fresh.structure, fresh.body, fresh.header, fresh.places,
        ):  # fmt: skip
            yield Fault(
                f"{box.name}: message {message.uid}: what is kept of it is not what its file says",
                lambda uid=message.uid, fresh=fresh: _told(index, box, uid, fresh),  # type: ignore[misc]
            )


def _told(index: Index, box: Box, uid: int, fresh: Summarised) -> None:
    index.tell(box.id, uid, fresh)
    headings.forget(index, box.id)


def _emptied(index: Index, box: Box) -> None:
    index.expunge(box.id, [message.uid for message in index.messages(box.id)], dooms=False)


def _sums(index: Index) -> Iterator[Fault]:
    execute = index.connection.execute
    octets, count = execute("SELECT coalesce(sum(size), 0), count(*) FROM msg").fetchone()
    if index.usage() != (octets, count):
        yield Fault(
            f"the index counts {index.usage()[1]} messages of {index.usage()[0]} octets, there are {count} of {octets}",
            lambda: _recount(index, octets, count),
        )
    for (box,) in execute("SELECT DISTINCT box FROM msg WHERE box NOT IN (SELECT id FROM box)").fetchall():
        yield Fault(f"messages of mailbox {box}, which is not there", lambda box=box: _forgotten(index, box))  # type: ignore[misc]
    if index.box(INBOX) is None:
        yield Fault("there is no INBOX", None)


def _forgotten(index: Index, box: int) -> None:
    """Their files are in some mailbox's folder: all are looked at anew, so that they come back as messages."""
    boxes.forget(index, box)
    index.connection.execute("UPDATE box SET looked = 0")


def _recount(index: Index, octets: int, count: int) -> None:
    index.connection.execute("DELETE FROM quota")
    index.connection.execute("INSERT INTO quota(octets, messages) VALUES(?, ?)", [octets, count])
