"""What is in an archive, member by member, by libarchive, never on disk and within a budget.

The archive is a stranger's: sizes and counts that it declares are not believed, only octets that come out are counted.
libarchive is C code over hostile input, so this runs in a process whose end costs nothing (servers.content). Where the
library is not installed, zip, gz, bz2, xz and tar are read by the standard library, and other archives count as broken.
"""

import bz2
import gzip
import lzma
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any

from gateway.content import unpacker
from gateway.content.unpacker import UnpackError

MAX_OCTETS = 64 * 1024 * 1024  # unpacked, of one message
MAX_MEMBER = 32 * 1024 * 1024  # of one file in an archive
MAX_MEMBERS = 5000  # of one message
MAX_LEVELS = 6  # archives in archives
MAX_SECONDS = 8.0
_UNIX, _TYPE_MASK, _REGULAR = 3, 0o170000, 0o100000
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
    return unpacker.LIBRARY is not None


def members(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    """Of an archive whose type is in types.ARCHIVES. Raises ArchiveError, LimitReached."""
    if not has_library():
        yield from _by_python(octets, true_type, budget)
        return
    found: set[str] = set()
    for member in _by_library(octets, true_type, budget):
        found.add(member.name.replace("\\", "/"))
        yield member
    if _FORMATS[true_type] == ("zip",):
        yield from _said_otherwise(octets, found, budget)


def _by_library(octets: bytes, true_type: str, budget: Budget) -> Iterator[Member]:
    try:
        with unpacker.opened(octets, _FORMATS[true_type], _FILTERS.get(true_type, "none")) as archive:
            for entry in archive.entries():
                budget.count()
                if entry.is_encrypted:
                    yield Member(entry.name, None, is_encrypted=True)
                    continue
                size = 0

                def spend(octets: int) -> None:
                    nonlocal size
                    budget.spend(octets)
                    size += octets
                    if size > MAX_MEMBER:
                        raise LimitReached

                # Whatever it calls itself: a folder or a device with content is a file elsewhere.
                content = archive.content(entry, spend)
                if entry.name == UNNAMED and content == octets:
                    raise ArchiveError("not packed at all")  # the library gives what it cannot read as it is
                is_file = bool(content) or not (entry.is_link or entry.is_encrypted or entry.is_folder)
                yield Member(
                    entry.name, content if is_file else None, entry.is_encrypted, entry.is_link, entry.is_broken
                )
    except UnpackError as error:
        raise ArchiveError(str(error), is_encrypted=error.is_encrypted) from None


def _said_otherwise(octets: bytes, found: set[str], budget: Budget) -> Iterator[Member]:
    """A zip has its names twice, and a directory that others may look for elsewhere: what does not agree is told. So is
    the content of what calls itself a folder, a link or a device, which is a file where nobody knows such things.
    """
    try:
        archive = zipfile.ZipFile(BytesIO(octets))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error):
        return
    with archive:
        infos = archive.infolist()
        for info in infos:
            kind = info.external_attr >> 16 & _TYPE_MASK
            if info.create_system == _UNIX and kind not in (0, _REGULAR) and not info.filename.endswith("/"):
                budget.count()
                yield _zip_member(archive, info, budget)
            elif not {name.replace("\\", "/") for name in (info.filename, _as_utf8(info.filename))} & found:
                budget.count()
                yield Member(info.filename, None, is_broken=not info.flag_bits & 1)
        first = min((info.header_offset for info in infos), default=len(octets))
        if b"PK\x05\x06" in archive.comment or octets.find(b"PK\x03\x04", 0, first) >= 0:
            yield Member("", None, is_broken=True)


def _as_utf8(name: str) -> str:
    """A name that the standard library has read as of DOS, where it is UTF-8 without saying so."""
    return name.encode("cp437", "replace").decode("utf-8", "replace")


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
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        lzma.LZMAError,
        zlib.error,
        ValueError,
        NotImplementedError,
        IndexError,
        struct.error,
    ) as error:
        raise ArchiveError(f"{type(error).__name__}: {error}") from None


def _zip(octets: bytes, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(BytesIO(octets)) as archive:
        for info in archive.infolist():
            budget.count()
            yield _zip_member(archive, info, budget)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Member:
    if info.flag_bits & 1:
        return Member(info.filename, None, is_encrypted=True)
    if info.filename.endswith("/"):
        return Member(info.filename, None)
    try:
        with archive.open(info) as file:
            return Member(info.filename, _read(file, budget))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError):
        return Member(info.filename, None, is_broken=True)


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
