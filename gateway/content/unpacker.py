"""libarchive by ctypes: just what reading a stranger's archive from memory needs, with each return code looked at.

After a fatal error nothing more is asked of an archive: the library crashes where it is. A warning is no content.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

EOF, OK, WARN, FAILED, FATAL = 1, 0, -20, -25, -30
LINK, FOLDER = 0o120000, 0o040000
_TYPE_MASK = 0o170000
_MAX_WARNINGS = 20  # of one member
_BLOCK = 64 * 1024
_ENCRYPTED = ("ncrypt", "assphrase", "assword")  # as the library's complaints say it


def _load() -> Any:
    """The library, or None where it is not installed."""
    for name in ("libarchive.so.13", "libarchive.dylib"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.archive_read_new.restype = ctypes.c_void_p
        library.archive_entry_new.restype = ctypes.c_void_p
        library.archive_read_data.restype = ctypes.c_ssize_t
        library.archive_read_data.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.archive_read_open_memory.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.archive_read_next_header2.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        for text in ("archive_error_string", "archive_entry_pathname", "archive_entry_pathname_utf8"):
            getattr(library, text).restype = ctypes.c_char_p
            getattr(library, text).argtypes = [ctypes.c_void_p]
        for of_one in (
            "archive_read_free", "archive_entry_free", "archive_entry_filetype", "archive_entry_is_encrypted",
            "archive_read_has_encrypted_entries",
        ):  # fmt: skip
            getattr(library, of_one).argtypes = [ctypes.c_void_p]
        return library
    return None


LIBRARY = _load()


class UnpackError(Exception):
    """It cannot be read on. is_encrypted: for want of a password."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.is_encrypted = any(word in reason for word in _ENCRYPTED)


@dataclass(slots=True)
class Entry:
    """is_broken: set while its content is read."""

    name: str
    is_encrypted: bool
    is_link: bool
    is_folder: bool
    is_broken: bool = False


class Unpacker:
    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self._entry = LIBRARY.archive_entry_new()
        self._is_over = False

    def free(self) -> None:
        LIBRARY.archive_entry_free(self._entry)

    def entries(self) -> Iterator[Entry]:
        """Raises UnpackError."""
        while not self._is_over:
            code = LIBRARY.archive_read_next_header2(self._pointer, self._entry)
            if code == EOF:
                if LIBRARY.archive_read_has_encrypted_entries(self._pointer) == 1:
                    raise UnpackError("Encrypted")
                return
            if code <= FAILED:
                raise UnpackError(self._reason())
            kind = LIBRARY.archive_entry_filetype(self._entry) & _TYPE_MASK
            found = Entry(
                self._name(),
                bool(LIBRARY.archive_entry_is_encrypted(self._entry)),
                kind == LINK,
                kind == FOLDER,
                is_broken=code < OK,
            )
            yield found
        raise UnpackError(self._reason())

    def content(self, entry: Entry, spend: Callable[[int], None]) -> bytes:
        """Of the entry given last. spend: told of each block, and may raise."""
        buffer = ctypes.create_string_buffer(_BLOCK)
        out: list[bytes] = []
        warnings = 0
        while True:
            size = LIBRARY.archive_read_data(self._pointer, buffer, _BLOCK)
            if size > 0:
                spend(size)
                out.append(buffer.raw[:size])
                continue
            if size == 0:
                break
            reason = self._reason()
            if any(word in reason for word in _ENCRYPTED):
                entry.is_encrypted = True
            else:
                entry.is_broken = True
            warnings += 1
            if size == FATAL:
                self._is_over = True
            if size <= FAILED or warnings > _MAX_WARNINGS:
                break
        return b"".join(out)

    def _name(self) -> str:
        raw = LIBRARY.archive_entry_pathname_utf8(self._entry) or LIBRARY.archive_entry_pathname(self._entry) or b""
        return bytes(raw).decode("utf-8", "replace")

    def _reason(self) -> str:
        return bytes(LIBRARY.archive_error_string(self._pointer) or b"").decode("utf-8", "replace")


@contextmanager
def opened(octets: bytes, formats: tuple[str, ...], packing: str) -> Iterator[Unpacker]:
    """formats: of the library, such as "7zip"; packing: its filter. Raises UnpackError."""
    pointer = ctypes.c_void_p(LIBRARY.archive_read_new())
    try:
        getattr(LIBRARY, f"archive_read_support_filter_{packing}")(pointer)
        for name in formats:
            getattr(LIBRARY, f"archive_read_support_format_{name}")(pointer)
        if LIBRARY.archive_read_open_memory(pointer, octets, len(octets)) != OK:
            raise UnpackError(bytes(LIBRARY.archive_error_string(pointer) or b"").decode("utf-8", "replace"))
        unpacker = Unpacker(pointer.value or 0)
        try:
            yield unpacker
        finally:
            unpacker.free()
    finally:
        LIBRARY.archive_read_free(pointer)
