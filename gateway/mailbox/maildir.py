"""Body files in Maildir++ shape: `time.MxPy.host,S=size,W=size,U=uid:2,flags`, CRLF line ends, immutable.

Other programs (mutt, Dovecot) can read them. A file is synced in `tmp`, then renamed into `cur`, whose folder is
synced.
"""

import itertools
import os
import shutil
import socket
import time
from collections.abc import Iterable
from pathlib import Path

_COUNTER = itertools.count(1)
_HOST = socket.gethostname().replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")


def make_maildir(folder: Path, *, below: Path) -> None:
    """Durable before anything is delivered: each folder made is synced into its parent, from `below` down."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(below) and not path.exists()]
    missing = [path for path in missing if path != below]
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (*missing, folder):
        _sync(path)
        _sync(path.parent)


def write_temporary(folder: Path, pieces: Iterable[bytes]) -> tuple[Path, int]:
    """A synced file in tmp/ and its size in octets."""
    path = folder / "tmp" / new_unique()
    size = 0
    try:
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for piece in pieces:
                file.write(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, size


def new_unique() -> str:
    """What begins a file's name, and no other's."""
    now = time.time()
    return f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_COUNTER)}.{_HOST}"


def final_name(unique: str, size: int, uid: int, letters: str = "") -> str:
    """unique: what begins the name of a temporary file; letters: of flags."""
    return f"{unique},S={size},W={size},U={uid}:2,{letters}"


def with_letters(name: str, letters: str) -> str:
    return f"{name.partition(':')[0]}:2,{letters}"


def link_into_place(source: Path, folder: Path, name: str) -> None:
    """A copy that costs no space; cur/ is not synced yet."""
    os.link(source, folder / "cur" / name)


def sync_folder(folder: Path) -> None:
    _sync(folder / "cur")


def find(folder: Path, name: str) -> Path | None:
    """Where a message's file is now: another program may have changed the flags at the end of its name."""
    path = folder / "cur" / name
    if path.exists():
        return path
    base = name.partition(":")[0]
    with os.scandir(folder / "cur") as entries:
        return next((Path(entry.path) for entry in entries if entry.name.partition(":")[0] == base), None)


def move_into_place(folder: Path, temporary: Path, name: str) -> None:
    """Rename into cur/ and sync it."""
    temporary.rename(folder / "cur" / name)
    _sync(folder / "cur")


def remove_folder(folder: Path) -> None:
    """A mailbox's folder, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def move_folder(folder: Path, other: Path) -> None:
    """What is in the way, of which no mailbox knows, is set aside."""
    if other.exists():
        other.rename(other.with_name(f"aside-{new_unique()}"))
    folder.rename(other)
    _sync(other.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
