"""End of data and what the content looks like, for DATA and BDAT, as streams (RFC 5321 4.5.2, 2.3.8; RFC 3030).

Pure and border-safe: any split of the octets gives the same result. The only end of data is CRLF "." CRLF; a bare CR
or LF is counted, never taken for a line end, so no smuggled dot ends a message here. The caller decides what breaches
cost.
"""

import re
from dataclasses import dataclass


@dataclass(slots=True)
class ContentFacts:
    """What was seen in the octets of one message; has_long_line: one exceeded the scanner's limit."""

    size: int = 0
    bare_cr: int = 0
    bare_lf: int = 0
    has_nul: bool = False
    has_8bit: bool = False
    has_long_line: bool = False


class ContentScanner:
    """Feed it the message octets in any pieces; `facts` is whole after `finish`.

    line_limit: octets of a line with its CRLF (RFC 5321 4.5.3.1.6 says 1000).
    """

    __slots__ = ("_limit", "_line", "_pending_cr", "facts")

    def __init__(self, line_limit: int) -> None:
        self._limit = line_limit
        self.facts = ContentFacts()
        self._line = 0  # octets of the line in progress
        self._pending_cr = False  # the last octet was a CR whose LF may come

    def feed(self, chunk: bytes) -> None:
        if not chunk:
            return
        facts = self.facts
        facts.size += len(chunk)
        crlf = chunk.count(b"\r\n")
        cr = chunk.count(b"\r")
        lf = chunk.count(b"\n")
        bare_cr, bare_lf = cr - crlf, lf - crlf
        if self._pending_cr:
            if chunk[0] == 10:
                bare_lf -= 1
            else:
                facts.bare_cr += 1
        self._pending_cr = chunk[-1] == 13
        if self._pending_cr:
            bare_cr -= 1
        facts.bare_cr += bare_cr
        facts.bare_lf += bare_lf
        if not chunk.isascii():
            facts.has_8bit = True
        if not facts.has_nul and b"\0" in chunk:
            facts.has_nul = True
        if not facts.has_long_line:
            facts.has_long_line = self._exceeds(chunk)

    def _exceeds(self, chunk: bytes) -> bool:
        """Leaps from line end to line end, a limit at a time. LF alone counts: a bare CR is a breach of its own."""
        start, end, limit = -self._line, len(chunk), self._limit
        while end - start > limit:
            newline = chunk.rfind(b"\n", max(start, 0), start + limit) if start + limit > 0 else -1
            if newline < 0:
                return True
            start = newline + 1
        last = chunk.rfind(b"\n", max(start, 0))
        self._line = end - 1 - last if last >= 0 else end - start
        return False

    def finish(self) -> ContentFacts:
        if self._pending_cr:
            self.facts.bare_cr += 1
            self._pending_cr = False
        return self.facts


# A lone dot whose line ends are not both CRLF: what SMTP smuggling sends (CVE-2023-51764 and its siblings).
_LONE_DOT = re.compile(rb"(?<!\r)\n\.[\r\n]|\r\.[\r\n]|\r\n\.\n|\r\n\.\r[^\n]")


class DataDecoder:
    """Finds CRLF "." CRLF and undoes dot-stuffing. Once `done`, `rest` holds the octets that followed the end."""

    __slots__ = ("_before", "_chunk", "_tail", "_virtual", "done", "rest")

    def __init__(self) -> None:
        self._tail = b"\r\n"  # held back: a suffix that may begin CRLF "." CRLF; DATA starts as if after a CRLF
        self._virtual = 2  # octets of that first CRLF, never part of the message
        self._before = b"\r\n"  # the last octets before the newest chunk
        self._chunk = b""
        self.done = False
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Message octets that are certain now. The CRLF before the final dot belongs to the message."""
        if self._chunk:
            self._before = (self._before + self._chunk[-4:])[-4:]
        self._chunk = chunk
        data = self._tail + chunk
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            self.done = True
            self.rest = data[end + 5 :]
            self._chunk = chunk[: len(chunk) - len(self.rest)]
            body = data[: end + 2]
        else:
            cut = len(data) - _held_back(data)
            body, self._tail = data[:cut], data[cut:]
        if not body:
            return b""
        body = body.replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2: a leading dot was doubled
        if self._virtual:
            body, self._virtual = body[2:], 0
        return body

    def has_lone_dot(self) -> bool:
        """Did the newest chunk complete a lone dot between line ends of which one is bare?"""
        return _LONE_DOT.search(self._before + self._chunk) is not None


def _held_back(data: bytes) -> int:
    """How many last octets may yet belong to CRLF "." CRLF or to a stuffed dot."""
    for length in (4, 3, 2, 1):
        if data.endswith(b"\r\n.\r"[:length]):
            return length
    return 0


class LineEndRepair:
    """Turns bare CR or LF into CRLF, for the networks of `[limits] repair_bare_lf_from` only."""

    __slots__ = ("_cr",)

    def __init__(self) -> None:
        self._cr = False  # a CR ended the last chunk and is held back

    def feed(self, chunk: bytes) -> bytes:
        if not chunk:
            return b""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk[-1] == 13  # its LF may come with the next chunk
        if self._cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
