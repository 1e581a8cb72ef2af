"""Body files in Maildir++ shape: `time.MxPy.host,S=size,W=size,U=uid:2,flags`, CRLF line ends, immutable.

Other programs (mutt, Dovecot) can read them. A file is synced in `tmp`, then linked into `cur`, whose folder is synced;
the first name goes once the index knows the message. So a crash leaves both, and tells ours from what others bring.
"""

import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KEPT = 1024 * 1024  # octets of a message that need not be read again once they are written

_COUNTER = itertools.count(1)
_OURS = re.compile(r"([!-+\--9;-~]+)(?:,S=\d+)?(?:,W=\d+)?(?:,U=(\d+))?", re.ASCII)
LATEST = 250_000_000_000.0  # seconds since the epoch: in the year 9892
_REMOVED = "removed"
_READ_SIZE = 256 * 1024
_HOST = socket.gethostname().replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")


def make_maildir(folder: Path, *, below: Path) -> None:
    """Durable before anything is delivered: each folder made is synced into its parent, from `below` down."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(below) and not path.exists()]
    missing = [path for path in missing if path != below]
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (*missing, folder):
        sync(path)
        sync(path.parent)


@dataclass(frozen=True, slots=True)
class Written:
    """A synced file in tmp/. unique: its name; octets: None where there are more than are kept."""

    path: str
    unique: str
    size: int
    octets: bytes | None


def write_temporary(folder: Path, pieces: Iterable[bytes], *, keep: int = KEPT) -> Written:
    unique = new_unique()
    path = os.path.join(folder, "tmp", unique)
    size = 0
    kept: list[bytes] = []
    try:
        with open(path, "xb", opener=_open_private) as file:
            for piece in pieces:
                file.write(piece)
                size += len(piece)
                if size <= keep:
                    kept.append(piece)
                else:
                    kept.clear()
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        drop([path])
        raise
    return Written(path, unique, size, b"".join(kept) if size <= keep else None)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def new_unique() -> str:
    """What begins a file's name, and no other's."""
    now = time.time()
    return f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}Q{next(_COUNTER)}.{_HOST}"


def final_name(unique: str, size: int, uid: int, letters: str = "") -> str:
    """unique: what begins the name of a temporary file; letters: of flags."""
    return f"{unique},S={size},W={size},U={uid}:2,{letters}"


def with_letters(name: str, letters: str) -> str:
    return f"{name.partition(':')[0]}:2,{letters}"


def unique_of(base: str) -> str:
    """What begins a name; base: a name without its flags."""
    return base.partition(",")[0]


def uid_of(base: str) -> int | None:
    """That the name tells."""
    match = _OURS.fullmatch(base)
    return None if match is None or match[2] is None or len(match[2]) > 10 else int(match[2])


def time_of(base: str) -> int:
    """That its name begins with, in seconds; 0: none."""
    first = base.partition(".")[0]
    return int(first) if first.isascii() and first.isdigit() and len(first) < 12 else 0


def is_half_made(folder: Path, base: str, name: str) -> bool:
    """Its first name, in tmp/, is there still."""
    try:
        return (folder / "tmp" / unique_of(base)).stat().st_ino == (folder / "cur" / name).stat().st_ino
    except OSError:
        return False


def date_of(path: Path) -> float:
    """When it came; within the years that a date can have. Raises OSError."""
    return min(max(path.stat().st_mtime, 0.0), LATEST)


def is_plain(base: str) -> bool:
    """Can a name of ours begin like this one, of another program?"""
    return _OURS.fullmatch(base) is not None and len(base) < 150


def name_in(folder: Path, part: str, name: str) -> str:
    """As text: where a thousand files are linked, Path takes longer than the system."""
    return f"{folder}/{part}/{name}"


def link_temporary(source: Path, name: str, folder: Path) -> str | None:
    """A copy in another folder's tmp/ that costs no space; its name. None: there is no such file."""
    unique = new_unique()
    target = name_in(folder, "tmp", unique)
    try:
        os.link(name_in(source, "cur", name), target)
    except FileNotFoundError:
        path = find(source, name)
        if path is None:
            return None
        os.link(path, target)
    return unique


def link_into_place(folder: Path, temporary: str, name: str) -> None:
    """temporary: its name in tmp/. cur/ is not synced yet."""
    os.link(name_in(folder, "tmp", temporary), name_in(folder, "cur", name))


def rename(folder: Path, old: str, new: str) -> bool:
    """A message's file; False: it cannot be, which is no harm."""
    try:
        os.rename(name_in(folder, "cur", old), name_in(folder, "cur", new))
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    sync(f"{folder}/cur")


def find(folder: Path, name: str) -> Path | None:
    """Where a message's file is now: another program may have changed the flags at the end of its name."""
    path = folder / "cur" / name
    if path.exists():
        return path
    base = name.partition(":")[0]
    with os.scandir(folder / "cur") as entries:
        return next((Path(entry.path) for entry in entries if entry.name.partition(":")[0] == base), None)


def read(folder: Path, name: str, start: int, size: int) -> bytes:
    """So many octets of a message. Raises FileNotFoundError."""
    try:
        descriptor = os.open(name_in(folder, "cur", name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        path = find(folder, name)
        if path is None:
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def remove(folder: Path, name: str) -> None:
    """A message's file, whatever another program made of the flags in its name."""
    try:
        os.unlink(name_in(folder, "cur", name))
    except FileNotFoundError:
        path = find(folder, name)
        if path is not None:
            path.unlink(missing_ok=True)


def drop(paths: Iterable[str]) -> None:
    """Names of files, where they are there."""
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)


def listing(folder: Path, part: str) -> dict[str, str]:
    """Names of the messages in cur or new, by what stands before their flags; {} where there is no such folder."""
    try:
        with os.scandir(folder / part) as entries:
            return {
                entry.name.partition(":")[0]: entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
            }
    except FileNotFoundError:
        return {}


def changed_at(folder: Path, part: str) -> int:
    """When names in cur or new last changed, in ns; -1: there is none."""
    try:
        return os.stat(f"{folder}/{part}").st_mtime_ns
    except FileNotFoundError:
        return -1


def folders(maildir: Path) -> set[str]:
    """Those of mailboxes but INBOX."""
    with os.scandir(maildir) as entries:
        return {
            entry.name
            for entry in entries
            if entry.name.startswith(".") and entry.name not in (".", "..") and (Path(entry.path) / "cur").is_dir()
        }


def mend_line_ends(path: Path, folder: Path) -> int:
    """Ends every line with CRLF, in place; the size in octets. What others deliver has mostly LF alone."""
    with open(path, "rb", opener=_open_plain) as file:
        before = os.fstat(file.fileno())
        if all(octets.count(b"\n") == octets.count(b"\r\n") for octets in _pieces(file)):
            return before.st_size
        written = write_temporary(folder, with_crlf(file), keep=0)
    os.utime(written.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(written.path, path)
    return written.size


def _open_plain(path: str, flags: int) -> int:
    """What was a file a moment ago may be a link or a pipe now."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def with_crlf(file: BinaryIO) -> Iterator[bytes]:
    """The octets from the start, every line ended by CRLF."""
    file.seek(0)
    for octets in _pieces(file):
        yield octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """That part no CRLF."""
    held = b""
    while octets := file.read(_READ_SIZE):
        octets = held + octets
        held = b"\r" if octets.endswith(b"\r") else b""
        yield octets[: len(octets) - len(held)]
    yield held


def remove_folder(folder: Path) -> None:
    """A mailbox's folder, with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def put_aside(folder: Path) -> Path:
    """A mailbox's folder that is to go once the index has forgotten it."""
    other = folder.with_name(f"{_REMOVED}{folder.name}:{os.urandom(4).hex()}")
    folder.rename(other)
    return other


def put_aside_before(maildir: Path) -> list[Path]:
    return sorted(maildir.glob(f"{_REMOVED}.*:*"))


def name_before(folder: Path) -> str:
    """Of one that is put aside."""
    return folder.name.removeprefix(_REMOVED).rpartition(":")[0]


def move_folder(folder: Path, other: Path) -> None:
    """What is in the way, of which no mailbox knows, is set aside."""
    if other.exists():
        other.rename(other.with_name(f"aside-{new_unique()}"))
    folder.rename(other)
    sync(other.parent)


def sync(folder: Path | str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
