"""Links in a message, found in its octets and in what they decode to, however broken its structure is.

Mail programs differ in what they show of a malformed message, so nothing here hangs on boundaries or content types:
the body is looked through as it is, and so is all that stands behind a base64 or quoted-printable field. A link too
many costs a look-up; one too few lets somebody hide. Each octet is looked at a bounded number of times.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

from gateway.core.address import parse_domain
from gateway.message.loose import encoded_sections

MAX_SCANNED = 1024 * 1024  # octets of a message that are looked at
MAX_URLS = 200
MAX_URL = 512  # characters that are kept of one

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});?")
_START = r"(?<![A-Za-z0-9])(?:https?|ftp):[/\\]{0,8}|(?<![\w.])www\.|(?<=[\"'(=])(?:[/\\]{2,8})"
_URL = re.compile(rf"(?:{_START})[^\s<>\"'\x00-\x20\x7f]{{1,8000}}", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"(?:href|src|action|cite|background|poster)\s{0,20}=\s{0,20}(?:\"([^\"]{1,8000})|'([^']{1,8000})|([^\s>\"']{1,8000}))",
    re.IGNORECASE,
)
_SPLIT_UP = re.compile(r"[\t\r\n]+")
_PREFIX = re.compile(r"(?:(?:https?|ftp):)?[/\\]*", re.IGNORECASE)
_IS_LINK = re.compile(r"(?:https?|ftp):|[/\\]{2}|www\.", re.IGNORECASE)
_HOST_END = re.compile(r"[/\\?#]")
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})
_IGNORED = dict.fromkeys(map(ord, "\u00ad\u034f\u200b\u200c\u200d\u2060\ufeff"))  # UTS 46 maps them to nothing
_TRAILING = ".,;:!?)]}"


def urls_of(octets: bytes) -> tuple[str, ...]:
    """In order, each once, MAX_URLS at most. octets: a whole message, or the first MAX_SCANNED of it."""
    found: dict[str, None] = {}
    for text in _texts(octets[:MAX_SCANNED]):
        for url in _links(text):
            found[url] = None
            if len(found) >= MAX_URLS:
                return tuple(found)
    return tuple(found)


def host_of(url: str) -> str | None:
    """Its host in A-labels; None for an address, or what is no host name.

    As browsers read it: percent-decoded, letters and dots of other widths mapped, what is invisible left out. Labels
    in front that no host name has are dropped: with wildcards in DNS any label leads to the domain.
    """
    place = _HOST_END.split(_PREFIX.sub("", url.strip(), count=1), maxsplit=1)[0].rpartition("@")[2]
    decoded = unicodedata.normalize("NFKC", unquote(place, errors="replace").translate(_IGNORED).translate(_DOTS))
    name = decoded.translate(_DOTS).partition(":")[0].strip(". ").lower()
    if name.replace(".", "").isdigit():
        return None
    labels = name.split(".")[-10:]
    while len(labels) >= 2:
        try:
            domain = parse_domain(".".join(labels))
        except ValueError:
            del labels[0]
            continue
        return None if domain.is_literal else domain.ascii
    return None


def _texts(octets: bytes) -> Iterator[str]:
    """The message as it is, and each encoded part of it decoded."""
    yield octets.decode("utf-8", "replace")
    for decoded in encoded_sections(octets):
        yield decoded.replace(b"\0", b"").decode("utf-8", "replace")  # NUL: UTF-16, as far as links go


def _links(text: str) -> Iterator[str]:
    for match in _URL.finditer(text):
        yield from _kept(match[0])
    plain = _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text
    if plain is not text:
        for match in _URL.finditer(plain):
            yield from _kept(match[0])
    for match in _ATTRIBUTE.finditer(plain):
        value = _SPLIT_UP.sub("", match[1] or match[2] or match[3]).strip()
        if _IS_LINK.match(value):
            yield from _kept(value)


def _kept(url: str) -> Iterator[str]:
    """At most MAX_URL of it; where a long user part would push the host out, without that."""
    stripped = url.rstrip(_TRAILING)
    if len(stripped) > MAX_URL:
        prefix = _PREFIX.match(stripped)
        start = prefix.end() if prefix else 0
        end = _HOST_END.search(stripped, start)
        place = stripped[start : end.start() if end else len(stripped)]
        stripped = stripped[:start] + place.rpartition("@")[2] + (stripped[end.start() :] if end else "")
    if _PREFIX.sub("", stripped, count=1):
        yield stripped[:MAX_URL]
