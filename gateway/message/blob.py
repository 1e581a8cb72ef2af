"""The octets of one message as received: in memory while small, in a file when large. Never rewritten."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

INLINE_LIMIT = 64 * 1024  # octets: up to here a body lives in the queue's row and never touches a file


class Blob(Protocol):
    @property
    def size(self) -> int: ...

    def open(self) -> BinaryIO:
        """A reader from the first octet; the caller closes it."""

    def head(self, octets: int) -> bytes:
        """The first so many octets."""


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    octets: bytes

    @property
    def size(self) -> int:
        return len(self.octets)

    def open(self) -> BinaryIO:
        return BytesIO(self.octets)

    def head(self, octets: int) -> bytes:
        return self.octets[:octets]


@dataclass(frozen=True, slots=True)
class FileBlob:
    path: Path
    size: int

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def head(self, octets: int) -> bytes:
        with self.path.open("rb") as file:
            return file.read(octets)
