"""Links in a message's text, found in one pass over its octets, however broken its structure is.

Each line that begins with `--` may begin a part; what follows with fields of its own is one. Boundaries that were
declared are not asked for: what a mail program may show must be seen.
"""

import binascii
import html
import re
from collections.abc import Iterator
from itertools import pairwise

from gateway.core.address import parse_domain
from gateway.message.header import Header, parse_header

MAX_SCANNED = 1024 * 1024  # octets of a message that are looked at
MAX_URLS = 500
MAX_URL = 2048

_DELIMITER = re.compile(rb"^--[^\r\n]*\r?\n?", re.MULTILINE)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_URL = re.compile(
    rb"(?:\b(?:https?|ftp):[/\\]{1,4}|(?<=[\"'])//|\bwww\.)[^\s<>\"'\x00-\x20\x7f]{1,2000}", re.IGNORECASE
)
_PREFIX = re.compile(r"(?:(?:https?|ftp):)?[/\\]*", re.IGNORECASE)
_HOST_END = re.compile(r"[/\\?#]")


def urls_of(octets: bytes) -> tuple[str, ...]:
    """In order, each once, MAX_URLS at most. octets: a whole message, or the first MAX_SCANNED of it."""
    found: dict[str, None] = {}
    for text, is_html in _texts(octets[:MAX_SCANNED]):
        if is_html and b"&" in text:
            text = html.unescape(text.decode("latin-1")).encode("latin-1", "replace")
        for match in _URL.finditer(text):
            found[match[0][:MAX_URL].rstrip(b".,;:!?)]}").decode("utf-8", "replace")] = None
            if len(found) >= MAX_URLS:
                return tuple(found)
    return tuple(found)


def host_of(url: str) -> str | None:
    """Its host in A-labels; None for an address, or what is no host name."""
    place = _HOST_END.split(_PREFIX.sub("", url, count=1), maxsplit=1)[0].rpartition("@")[2]
    name = place.partition(":")[0].rstrip(".")
    try:
        domain = parse_domain(name)
    except ValueError:
        return None
    is_address = domain.ascii.replace(".", "").isdigit()
    return None if domain.is_literal or is_address or "." not in domain.ascii else domain.ascii


def _texts(octets: bytes) -> Iterator[tuple[bytes, bool]]:
    """Decoded texts, and whether each is HTML."""
    header = parse_header(octets)
    yield from _part(header, octets[header.end :].split(b"\n--", 1)[0])
    at = header.end
    pieces = [match.end() for match in _DELIMITER.finditer(octets, at)]
    for start, end in pairwise([*pieces, len(octets)]):
        piece = octets[start:end]
        inner = parse_header(piece)
        if any(inner.first(name) is not None for name in ("Content-Type", "Content-Transfer-Encoding")):
            header, piece = inner, piece[inner.end :]
        yield from _part(header, piece)


def _part(header: Header, body: bytes) -> Iterator[tuple[bytes, bool]]:
    kind = (header.text("Content-Type") or "text/plain").lower()
    if not kind.startswith(("text/", "multipart/", "message/")):
        return
    encoding = (header.text("Content-Transfer-Encoding") or "").lower()
    if "base64" in encoding:
        body = _from_base64(body)
    elif "quoted-printable" in encoding:
        body = binascii.a2b_qp(body)
    yield body.replace(b"\0", b""), kind.startswith("text/html")  # NUL: UTF-16, as far as links go


def _from_base64(body: bytes) -> bytes:
    letters = _NOT_BASE64.sub(b"", body)
    return binascii.a2b_base64(letters[: len(letters) // 4 * 4])
