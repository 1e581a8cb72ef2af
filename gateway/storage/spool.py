"""The spool: message octets on their way in, and the files of large messages in the queue.

A message stays in memory up to 64 KiB, then goes on in a file below `tmp/`. `keep` syncs that file, moves it to its
final name and syncs the folder, all off the event loop; only after that may a row name it. Nothing here is durable
before `keep` returns, and a crash leaves at worst a file without a row, which `sweep` removes.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.core.errors import StorageBroken, StorageFull
from gateway.message.blob import INLINE_LIMIT, Blob, FileBlob, MemoryBlob
from gateway.storage.sqlite import sync_directory

ORPHAN_AGE_S = 24 * 3600
_SPACE_CHECK_S = 1.0


class Spool:
    """root: holds `tmp/` and `blob/`. reserve: octets of free space below which nothing more is taken."""

    def __init__(self, root: Path, *, reserve: int = 0, threads: int = 4) -> None:
        self._tmp, self._blobs = root / "tmp", root / "blob"
        self._reserve = reserve
        self._checked = 0.0
        self._has_room = True
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="spool")

    def prepare(self) -> None:
        """Make all folders durable before anything is kept in them: a new one could be lost with its message."""
        for folder in (self._tmp, self._blobs, *(self._blobs / f"{number:02x}" for number in range(256))):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sync_directory(self._blobs)
        sync_directory(self._blobs.parent)

    def new(self) -> "SpoolContent":
        return SpoolContent(self)

    def has_room(self) -> bool:
        """Is the free space above the reserve? Looked at once a second at most."""
        now = time.monotonic()
        if now - self._checked > _SPACE_CHECK_S:
            self._checked = now
            self._has_room = shutil.disk_usage(self._blobs).free >= self._reserve
        return self._has_room

    def path_of(self, name: str) -> Path:
        return self._blobs / name[:2] / name

    def new_temporary(self) -> Path:
        return self._tmp / secrets.token_hex(12)

    def remove(self, name: str) -> None:
        self.path_of(name).unlink(missing_ok=True)

    def sweep(self, known: Collection[str], *, all_ages: bool) -> int:
        """Remove files that no row names: all of them at start (no listener is open yet), else only old ones."""
        limit = time.time() - ORPHAN_AGE_S
        removed = 0
        for path in (*self._tmp.iterdir(), *self._blobs.glob("*/*")):
            if path.name in known:
                continue
            try:
                if all_ages or path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed

    def keep(self, temporary: Path, name: str) -> None:
        """Make a temporary file durable under its final name. Blocking."""
        final = self.path_of(name)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise StorageBroken(f"spool: {error.strerror}") from error
        finally:
            os.close(descriptor)
        temporary.rename(final)
        sync_directory(final.parent)


class SpoolContent:
    """One message coming in (`smtp.server.Content`)."""

    __slots__ = ("_file", "_parts", "_spool", "path", "size")

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parts: list[bytes] = []
        self._file: int | None = None
        self.path: Path | None = None
        self.size = 0

    async def write(self, octets: bytes) -> None:
        """Raises StorageFull; then the content must be discarded."""
        if not self._spool.has_room():
            raise StorageFull("free space is below the reserve")
        self._parts.append(octets)
        self.size += len(octets)
        if self.size > INLINE_LIMIT:
            parts, self._parts = self._parts, []
            await asyncio.get_running_loop().run_in_executor(self._spool.pool, self._append, parts)

    def _append(self, parts: list[bytes]) -> None:
        try:
            if self._file is None:
                self.path = self._spool.new_temporary()
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(self._file, view) :]
        except OSError as error:
            raise StorageFull(f"spool: {error.strerror}") from error

    def end_line(self) -> bytes:
        """What the last octets lack of a CRLF (a BDAT message need not end in one)."""
        last = b"".join(self._parts[-2:])[-2:]
        if self._file is not None and self.path is not None:
            with self.path.open("rb") as file:
                file.seek(max(0, self.size - 2))
                last = file.read()
        return b"" if last.endswith(b"\r\n") else b"\r\n"

    def blob(self) -> Blob:
        """The whole content; no more is written after this."""
        if self.path is None:
            return MemoryBlob(b"".join(self._parts))
        if self._file is not None:
            os.close(self._file)
            self._file = None
        return FileBlob(self.path, self.size)

    def discard(self) -> None:
        self._parts = []
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None
