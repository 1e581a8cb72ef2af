"""Body files in Maildir++ shape: `time.MxPy.host,S=size,W=size,U=uid:2,flags`, CRLF line ends, immutable.

Other programs (mutt, Dovecot) can read them. A file is synced in `tmp`, then renamed into `cur`, whose folder is
synced.
"""

import itertools
import os
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
    now = time.time()
    name = f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_COUNTER)}.{_HOST}"
    path = folder / "tmp" / name
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


def final_name(temporary: Path, size: int, uid: int) -> str:
    return f"{temporary.name},S={size},W={size},U={uid}:2,"


def move_into_place(folder: Path, temporary: Path, name: str) -> None:
    """Rename into cur/ and sync it."""
    temporary.rename(folder / "cur" / name)
    _sync(folder / "cur")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
