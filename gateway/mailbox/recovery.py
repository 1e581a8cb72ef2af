"""A user's index made anew from the files: when it is damaged, or when an operator wants it.

Messages keep their UIDs where names tell them, flags come from names; what can still be read of the old index gives
back keywords, dates, uses of mailboxes, subscriptions and delivery ids. UIDVALIDITY is new, so that clients look at all
of it again. The old index stays beside the new one as `index.db.broken-TIME`.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.foldernames import folder_name
from gateway.core.mailflags import bits_of_letters, names_of
from gateway.mailbox import boxes, foreign, maildir
from gateway.mailbox.index import Index
from gateway.mailbox.schema import folder_lock, open_index
from gateway.mailbox.values import StoredMessage

KEPT = 3  # damaged indexes that stay, the newest
ID_STEP = 100_000  # numbers of mailboxes go on this far beyond what the old index can have had


@dataclass(frozen=True, slots=True)
class _Known:
    """Of a message: words of keywords, when it came, which message it is."""

    keywords: list[str]
    date: float
    email_id: str


@dataclass(slots=True)
class _Saved:
    """What could be read of an index. messages: by base name of their files."""

    boxes: dict[str, str] = field(default_factory=dict)  # special use by name
    validity: int = 0
    last_id: int = 0
    subscriptions: set[str] = field(default_factory=set)
    deliveries: list[str] = field(default_factory=list)
    messages: dict[str, _Known] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)


def rebuild(path: Path, inode: int | None = None) -> bool:
    """path: of index.db. inode: of the one that was found damaged; False: it has been replaced since."""
    root = path.parent / "Maildir"
    maildir.make_maildir(root, below=path.parent)
    with folder_lock(path.parent):
        if inode is not None and (not path.exists() or path.stat().st_ino != inode):
            return False
        saved = _read(path)
        new = path.with_name("index.db.new")
        _remove(new)
        first = max(saved.last_id, int(time.time())) + ID_STEP
        open_index(new, first_id=first, is_alone=True).close()
        with closing(Index(new, is_alone=True)) as index:
            _fill(index, root, saved)
        _replace(path, new)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        maildir.remove_folder(path)
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _replace(path: Path, new: Path) -> None:
    """There is an index at each moment: who opens it in between finds the damaged one, and waits."""
    kept = path.with_name(f"{path.name}.broken-{int(time.time())}-{os.urandom(2).hex()}")
    if path.is_dir():
        path.rename(kept)
    with suppress(FileNotFoundError):
        os.link(path, kept)
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(kept.with_name(kept.name + end))
    new.replace(path)
    maildir.sync(path.parent)
    for old in sorted(_kept(path), key=lambda each: each.name)[:-KEPT]:
        _remove(old)


def _kept(path: Path) -> list[Path]:
    return [each for each in path.parent.glob(f"{path.name}.broken-*") if not each.name.endswith(("-wal", "-shm"))]


# --- what the old one still tells ---------------------------------------------------------------------------------


def _read(path: Path) -> _Saved:
    saved = _Saved()
    names: dict[int, str] = {}
    words: dict[int, dict[int, str]] = {}
    for number, name, special, validity in _rows(path, "SELECT id, name, special, uidvalidity FROM box", "issi"):
        names[number] = name
        saved.boxes[name] = special
        saved.validity = max(saved.validity, validity)
        saved.last_id = max(saved.last_id, number)
    saved.subscriptions = {name for (name,) in _rows(path, "SELECT name FROM subscription", "s")}
    saved.deliveries = [name for (name,) in _rows(path, "SELECT id FROM delivery ORDER BY number", "s")]
    saved.doomed = {name for (name,) in _rows(path, "SELECT file FROM doomed", "s")}
    for box, bit, word in _rows(path, "SELECT box, bit, word FROM keyword", "iis"):
        words.setdefault(box, {})[bit] = word
    sql = "SELECT box, flags, idate, file, emailid FROM msg"
    for box, flags, date, file, email_id in _rows(path, sql, "iifss"):
        keywords = [name for name in names_of(max(flags, 0), words.get(box, {})) if not name.startswith("\\")]
        saved.messages[file.partition(":")[0]] = _Known(keywords, min(max(date, 0.0), maildir.LATEST), email_id)
    return saved


_TYPES = {"i": int, "s": str, "f": float}


def _rows(path: Path, sql: str, types: str) -> Iterator[tuple[Any, ...]]:
    """Up to where the damage begins, without those that are not of these types."""
    if not path.is_file():
        return
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(sqlite3.connect(path, timeout=5.0)) as connection:
        connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
        for row in connection.execute(sql):
            if all(isinstance(value, _TYPES[kind]) for value, kind in zip(row, types, strict=True)):
                yield row


# --- the new one --------------------------------------------------------------------------------------------------


def _fill(index: Index, root: Path, saved: _Saved) -> None:
    execute = index.connection.execute
    with index.change():
        execute("UPDATE last SET validity = max(validity, ?)", [saved.validity + 1])
        for box in boxes.all_boxes(index):
            (validity,) = execute("UPDATE last SET validity = validity + 1 RETURNING validity").fetchone()
            execute("UPDATE box SET uidvalidity = ? WHERE id = ?", [validity, box.id])
    for name in sorted(saved.boxes):
        with suppress(boxes.BoxRefused):
            boxes.take_in(index, name)
    with index.change():
        for name, special in saved.boxes.items():
            execute("UPDATE box SET special = ? WHERE name = ?", [special, name])
        if saved.subscriptions:
            execute("DELETE FROM subscription")
        for name in saved.subscriptions:
            execute("INSERT OR IGNORE INTO subscription VALUES(?)", [name])
        for delivery_id in saved.deliveries:
            execute("INSERT OR IGNORE INTO delivery(id) VALUES(?)", [delivery_id])
    foreign.look_for_folders(index, root)
    for box in boxes.all_boxes(index):
        with index.change():
            _fill_box(index, box.id, root / folder_name(box.name), saved)


def _fill_box(index: Index, box: int, folder: Path, saved: _Saved) -> None:
    """Messages whose files have a UID in their names, once each; the others come as what another program brought."""
    taken: set[int] = set()
    for base, name in sorted(maildir.listing(folder, "cur").items(), key=lambda each: each[0] not in saved.messages):
        uid, size = maildir.uid_of(base), (folder / "cur" / name).stat().st_size
        is_ours = name.isascii() and f",S={size},W={size}," in base and not maildir.is_half_made(folder, base, name)
        if uid is None or not is_ours or uid in taken or not 0 < uid < 1 << 31 or base in saved.doomed:
            continue
        taken.add(uid)
        known = saved.messages.get(base)
        flags = bits_of_letters(name.partition(":2,")[2])
        date = maildir.date_of(folder / "cur" / name) if known is None else known.date
        if known is not None:
            flags |= index.keyword_bits(box, known.keywords, create=True, drops=True)
        email_id = maildir.unique_of(base) if known is None else known.email_id
        index.add(box, 1, StoredMessage(uid, size, name, date, flags), None, email_id)
    index.connection.executemany("INSERT OR IGNORE INTO doomed VALUES(?, ?)", [(box, file) for file in saved.doomed])
    after = max(taken, default=0) + 1
    index.connection.execute("UPDATE box SET uidnext = ?, modseq = 2, recent = ? WHERE id = ?", [after, after, box])
