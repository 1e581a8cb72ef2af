"""Canonical bodies and their hashes (RFC 6376 3.4.3, 3.4.4, 3.7): streamed, each octet canonicalised once a form.

Linear in the body whatever it holds: blanks and empty lines whose fate the next octets decide are counted, not kept.
"""

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Protocol

from gateway.message.blob import INLINE_LIMIT, Blob

_BLANK = b" \t\r\n"
_EMPTY_LINES = b"\r\n" * 4096
_ALL = -1
_CHUNK = 64 * 1024


class BodyHashes:
    """SHA-256 of one body in the forms that were asked for. A limit is the `l=` of a signature: so many octets of the
    canonical body; None: all of it.
    """

    def __init__(self, wanted: Iterable[tuple[str, int | None]]) -> None:
        """wanted: "simple" or "relaxed", with a limit."""
        self._outputs: dict[str, _Output] = {}
        for form, limit in wanted:
            self._outputs.setdefault(form, _Output()).want(_ALL if limit is None else limit)
        self._forms: list[_Form] = [
            _Relaxed(output) if form == "relaxed" else _Simple(output) for form, output in self._outputs.items()
        ]
        self._carried = b""  # a CR that ends a chunk: the next begins with its LF

    def feed(self, chunk: bytes) -> None:
        chunk = self._carried + chunk
        self._carried = b"\r" if chunk.endswith(b"\r") else b""
        if self._carried:
            chunk = chunk[:-1]
        for form in self._forms:
            form.feed(chunk)

    def finish(self) -> None:
        for form in self._forms:
            form.feed(self._carried)
            form.finish()

    def length(self, form: str) -> int:
        """Octets of the canonical body."""
        return self._outputs[form].length

    def digest(self, form: str, limit: int | None) -> bytes:
        return self._outputs[form].digest(_ALL if limit is None else limit)


async def hash_body(hashes: BodyHashes, blob: Blob, start: int) -> None:
    """Feed and finish. start: the body's offset. A large one is read and hashed in a thread."""
    if blob.size <= INLINE_LIMIT:
        _hash_body(hashes, blob, start)
    else:
        await asyncio.to_thread(_hash_body, hashes, blob, start)


def _hash_body(hashes: BodyHashes, blob: Blob, start: int) -> None:
    with blob.open() as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            hashes.feed(chunk)
    hashes.finish()


class _Output:
    """Hashes of all of what is written, or of its beginning."""

    def __init__(self) -> None:
        self.length = 0
        self._hashes: dict[int, hashlib._Hash] = {}

    def want(self, limit: int) -> None:
        self._hashes.setdefault(limit, hashlib.sha256())

    def write(self, octets: bytes) -> None:
        for limit, found in self._hashes.items():
            if limit == _ALL:
                found.update(octets)
            elif self.length < limit:
                found.update(octets[: limit - self.length])
        self.length += len(octets)

    def digest(self, limit: int) -> bytes:
        return self._hashes[limit].digest()


class _Form(Protocol):
    def feed(self, chunk: bytes) -> None:
        """chunk does not end between CR and LF."""

    def finish(self) -> None: ...


class _Simple:
    """Of the empty lines at the end none is left; the last line ends in CRLF, of an empty body too."""

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._line_ends = 0  # that wait for more

    def feed(self, chunk: bytes) -> None:
        content = chunk.rstrip(b"\r\n")
        # Only whole CRLFs wait: a bare CR or LF is content.
        tail = chunk[len(content) :]
        ends = tail.count(b"\r\n")
        if ends * 2 != len(tail):
            keep = len(tail) - len(_whole_line_ends(tail))
            content, ends = chunk[: len(content) + keep], (len(tail) - keep) // 2
        if content:
            _write_line_ends(self._output, self._line_ends)
            self._output.write(content)
            self._line_ends = 0
        self._line_ends += ends

    def finish(self) -> None:
        self._output.write(b"\r\n")


class _Relaxed:
    """As simple; blanks at a line's end vanish, within a line they become one space; an empty body stays empty."""

    def __init__(self, output: _Output) -> None:
        self._output = output
        self._line_ends = 0
        self._has_blank = False  # after those line ends

    def feed(self, chunk: bytes) -> None:
        rest = chunk.lstrip(_BLANK)
        self._hold(chunk[: len(chunk) - len(rest)])
        content = rest.rstrip(_BLANK)
        if not content:
            return
        _write_line_ends(self._output, self._line_ends)
        if self._has_blank:
            self._output.write(b" ")
        self._line_ends, self._has_blank = 0, False
        self._output.write(_squeezed(content))
        self._hold(rest[len(content) :])

    def _hold(self, blank: bytes) -> None:
        """blank: spaces, tabs and line ends."""
        ends = blank.count(b"\n")
        self._line_ends += ends
        last = blank[blank.rfind(b"\n") + 1 :]
        self._has_blank = bool(last) or (self._has_blank and not ends)

    def finish(self) -> None:
        if self._output.length:
            self._output.write(b"\r\n")


def _squeezed(content: bytes) -> bytes:
    if b"\t" in content:
        content = content.replace(b"\t", b" ")
    while b"  " in content:  # halves the longest run each time
        content = content.replace(b"  ", b" ")
    return content.replace(b" \r\n", b"\r\n")


def _whole_line_ends(tail: bytes) -> bytes:
    """The CRLFs that `tail`, of CR and LF alone, ends in."""
    at = len(tail)
    while tail.endswith(b"\r\n", 0, at):
        at -= 2
    return tail[at:]


def _write_line_ends(output: _Output, count: int) -> None:
    while count:
        part = min(count, len(_EMPTY_LINES) // 2)
        output.write(_EMPTY_LINES[: part * 2])
        count -= part
