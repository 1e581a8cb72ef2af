"""What is in an archive, member by member, by libarchive, never on disk and within a budget.

The archive is a stranger's: sizes and counts that it declares are not believed, only octets that come out are counted.
libarchive is C code over hostile input, so this runs in a process whose end costs nothing (servers.content). Where the
library is not installed, zip, gz, bz2, xz and tar are read by the standard library, and other archives count as broken.
"""

import bz2
import gzip
import logging
import lzma
import os
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

os.environ.setdefault("LIBARCHIVE", "libarchive.so.13")  # its own search for the name starts a compiler
try:
    import libarchive
    from libarchive import ffi
except (OSError, AttributeError, TypeError):
    libarchive = None

MAX_OCTETS = 64 * 1024 * 1024  # unpacked, of one message
MAX_MEMBER = 32 * 1024 * 1024  # of one file in an archive
MAX_MEMBERS = 5000  # of one message
MAX_LEVELS = 6  # archives in archives
MAX_SECONDS = 8.0
UNNAMED = "data"  # the member of a packed file, which has no name of its own
_BLOCK = 64 * 1024
_FORMATS = {
    "zip": ("zip",), "docx": ("zip",), "xlsx": ("zip",), "pptx": ("zip",), "ooxml": ("zip",), "odf": ("zip",),
    "jar": ("zip",), "apk": ("zip",), "epub": ("zip",),
    "7z": ("7zip",), "rar": ("rar", "rar5"), "iso": ("iso9660",), "cab": ("cab",), "tar": ("tar",), "lha": ("lha",),
    "ar": ("ar",), "rpm": ("cpio",),
    "gz": ("raw",), "bz2": ("raw",), "xz": ("raw",), "zst": ("raw",),
}  # fmt: skip
_FILTERS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd", "rpm": "all"}
_ENCRYPTED = ("ncrypt", "assphrase", "assword")  # as libarchive's complaints say it


class ArchiveError(Exception):
    """It cannot be read on. is_encrypted: for want of a password."""

    def __init__(self, reason: str, *, is_encrypted: bool = False) -> None:
        super().__init__(reason)
        self.is_encrypted = is_encrypted


class LimitReached(Exception):
    """The budget of the message is spent."""


@dataclass(slots=True)
class Budget:
    """Of one message, over all its archives."""

    octets: int = MAX_OCTETS
    members: int = MAX_MEMBERS
    until: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)

    def spend(self, octets: int) -> None:
        self.octets -= octets
        if self.octets < 0 or time.monotonic() > self.until:
            raise LimitReached

    def count(self) -> None:
        self.members -= 1
        if self.members < 0 or time.monotonic() > self.until:
            raise LimitReached


@dataclass(frozen=True, slots=True)
class Member:
    """octets: None where they are encrypted or cannot be had, or it is no file."""

    name: str
    octets: bytes | None
    is_encrypted: bool = False
    is_link: bool = False
    is_broken: bool = False


def has_library() -> bool:
    return libarchive is not None


def members(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    """Of an archive whose type is in types.ARCHIVES. Raises ArchiveError, LimitReached."""
    if libarchive is not None:
        return _by_library(octets, true_type, budget)
    return _by_python(octets, true_type, budget)


def _by_library(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    try:
        with _opened(octets, true_type) as archive:
            for entry in archive:
                budget.count()
                yield _member(entry, budget)
            has_encrypted = ffi.libarchive.archive_read_has_encrypted_entries(archive._pointer)
        if has_encrypted == 1:
            raise ArchiveError("encrypted", is_encrypted=True)
    except libarchive.ArchiveError as error:
        raise _translated(error) from None


def _translated(error: Exception) -> ArchiveError:
    text = str(error)
    return ArchiveError(text, is_encrypted=any(word in text for word in _ENCRYPTED))


@contextmanager
def _opened(octets: bytes, true_type: str) -> Iterator[Any]:
    pointer = ffi.read_new()
    try:
        ffi.get_read_filter_function(_FILTERS.get(true_type, "none"))(pointer)
        for name in _FORMATS[true_type]:
            _READERS[name](pointer)
        ffi.read_open_memory(pointer, octets, len(octets))
        yield libarchive.read.ArchiveRead(pointer)
    finally:
        ffi.read_free(pointer)


def _reader(name: str) -> Callable[[Any], int]:
    found: Callable[[Any], int] = ffi.ffi(f"read_support_format_{name}", [ffi.c_archive_p], ffi.c_int, ffi.check_int)
    return found


def _member(entry: Any, budget: Budget) -> Member:
    path = entry.pathname
    name = path.decode("utf-8", "replace") if isinstance(path, bytes) else str(path or "")
    if ffi.libarchive.archive_entry_is_encrypted(entry._entry_p):
        return Member(name, None, is_encrypted=True)
    if entry.issym or entry.islnk:
        return Member(name, None, is_link=True)
    if not entry.isfile:
        return Member(name, None)
    out: list[bytes] = []
    size = 0
    try:
        for block in entry.get_blocks(_BLOCK):
            budget.spend(len(block))
            size += len(block)
            if size > MAX_MEMBER:
                raise LimitReached
            out.append(block)
    except libarchive.ArchiveError as error:
        found = _translated(error)
        return Member(name, b"".join(out) or None, is_encrypted=found.is_encrypted, is_broken=not found.is_encrypted)
    return Member(name, b"".join(out))


# --- without libarchive -------------------------------------------------------------------------------------------


def _by_python(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    formats = _FORMATS[true_type]
    try:
        if formats == ("zip",):
            yield from _zip(octets, budget)
        elif true_type == "tar":
            yield from _tar(octets, budget)
        elif true_type in ("gz", "bz2", "xz"):
            yield from _packed(octets, true_type, budget)
        else:
            raise ArchiveError("libarchive is not installed")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise ArchiveError(f"{type(error).__name__}: {error}") from None


def _zip(octets: bytes, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(BytesIO(octets)) as archive:
        for info in archive.infolist():
            budget.count()
            if info.flag_bits & 1:
                yield Member(info.filename, None, is_encrypted=True)
            elif info.is_dir():
                yield Member(info.filename, None)
            else:
                try:
                    with archive.open(info) as file:
                        yield Member(info.filename, _read(file, budget))
                except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError):
                    yield Member(info.filename, None, is_broken=True)


def _tar(octets: bytes, budget: Budget) -> Iterator[Member]:
    with tarfile.open(fileobj=BytesIO(octets), mode="r:") as archive:
        for info in archive:
            budget.count()
            file = archive.extractfile(info) if info.isreg() else None
            yield Member(info.name, None if file is None else _read(file, budget), is_link=info.issym() or info.islnk())


def _packed(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    with openers[true_type](BytesIO(octets), "rb") as file:
        budget.count()
        yield Member(UNNAMED, _read(file, budget))


def _read(file: IO[bytes], budget: Budget) -> bytes:
    out: list[bytes] = []
    size = 0
    while block := file.read(_BLOCK):
        budget.spend(len(block))
        size += len(block)
        if size > MAX_MEMBER:
            raise LimitReached
        out.append(block)
    return b"".join(out)


_READERS: dict[str, Callable[[Any], int]] = {}
if libarchive is not None:
    logging.getLogger("libarchive").disabled = True  # a stranger's archive is no news
    _READERS = {name: _reader(name) for names in _FORMATS.values() for name in names}
    ffi.libarchive.archive_read_has_encrypted_entries.argtypes = [ffi.c_archive_p]
    ffi.libarchive.archive_entry_is_encrypted.argtypes = [ffi.c_archive_entry_p]
