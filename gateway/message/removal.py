"""Parts taken out of a message: each is replaced by a text that says so. All other octets stay as they came."""

import base64
from collections.abc import Mapping

from gateway.message.edit import without
from gateway.message.mime import Part, walk

_LINE = 70


def without_parts(octets: bytes, notices: Mapping[str, str]) -> bytes:
    """The message without these parts. notices: what stands in their place, by the number of the part; a part in a part
    that goes is gone with it.
    """
    structure = walk(octets)
    out: list[bytes] = []
    at = 0
    for part in structure.parts:
        start = part.start - part.header.end
        if part.number in notices and start >= at:
            out += [octets[at:start], _replaced(octets[start : part.start], part, notices[part.number])]
            at = max(part.end, part.start)
    whole = b"".join((*out, octets[at:]))
    return whole if whole.endswith(b"\r\n") else whole + b"\r\n"


def _replaced(block: bytes, part: Part, notice: str) -> bytes:
    """Its own header but for what describes the content, which is text now."""
    raws = tuple(field.raw for field in part.header.fields if field.name.lower().startswith("content-"))
    kept = without(block, raws) if raws else block
    kept = kept.removesuffix(b"\r\n") if kept.endswith(b"\r\n\r\n") or kept == b"\r\n" else kept
    head, body = _text(notice)
    return kept + head + b"\r\n" + body


def _text(notice: str) -> tuple[bytes, bytes]:
    """Fields and body. It ends without a line end: that of the delimiter follows."""
    lines = notice.splitlines()
    if notice.isascii() and all(len(line) < 900 for line in lines):
        return b"Content-Type: text/plain; charset=us-ascii\r\n", "\r\n".join(lines).encode()
    packed = base64.b64encode("\r\n".join(lines).encode()).decode()
    body = "\r\n".join(packed[start : start + _LINE] for start in range(0, len(packed), _LINE))
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n", body.encode()
