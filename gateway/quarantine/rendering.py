"""A message shown to people who should not trust it: as plain text, cut, with nothing in it that acts.

No octet of the message reaches a page or a terminal as it is: HTML becomes text, links stay text, control characters
and those that turn the direction of writing are replaced, and files are named and not opened.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.address import parse_mailbox
from gateway.message.header import MAX_HEADER, Header, address_of, decode_octets, decode_text, parse_header
from gateway.message.mime import Part, walk
from gateway.message.transfer import decode
from gateway.queue.store import QueuedMessage

MAX_TEXT = 4000  # characters
MAX_FIELD = 300
MAX_FILES = 20
MAX_OCTETS = 256 * 1024  # of a message that are looked at
MAX_PART = 64 * 1024

_UNSHOWN = (("<!--", "--"), ("<style", "</style"), ("<script", "</script"), ("<head", "</head"), ("<title", "</title"))
_BREAK = re.compile(r"<(?:br|/p|/div|/tr|/h[1-6]|/li|hr)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_BLANKS = re.compile(r"[ \t\u00a0]+")
_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Shown:
    """author: From as written; author_address: its first address in lower case, "" where it has none that can be one;
    files: names.
    """

    author: str
    author_address: str
    subject: str
    date: str
    text: str
    files: tuple[str, ...]
    is_cut: bool


def show_fields(message: QueuedMessage) -> Shown:
    """Without text and files: what a list of messages needs."""
    return _shown(parse_header(_octets(message, MAX_HEADER)), "", (), is_cut=False)


def show(message: QueuedMessage) -> Shown:
    octets = _octets(message, MAX_OCTETS)
    parts = walk(octets).parts
    text = _text(octets, parts)
    is_cut = len(text) > MAX_TEXT or len(octets) >= MAX_OCTETS
    return _shown(parts[0].header, text[:MAX_TEXT], tuple(_files(parts)), is_cut=is_cut)


def safe(text: str, limit: int = MAX_FIELD) -> str:
    """One line that can be shown anywhere. Blanks in a row are one: no text moves itself to where a line begins."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:limit]).split())


def _octets(message: QueuedMessage, limit: int) -> bytes:
    return message.header + message.blob.head(message.offset + limit)[message.offset :]


def _shown(header: Header, text: str, files: tuple[str, ...], *, is_cut: bool) -> Shown:
    author = header.first("From")
    address = None if author is None else address_of(author.value)

    def field(name: str) -> str:
        found = header.first(name)
        return "" if found is None else safe(decode_text(found.value[: 4 * MAX_FIELD]))

    return Shown(field("From"), _address(address), field("Subject"), field("Date"), text, files, is_cut)


def _address(text: str | None) -> str:
    try:
        found = "" if text is None else str(parse_mailbox(text)).lower()
    except ValueError:
        return ""
    return found if found.isprintable() else ""


def _text(octets: bytes, parts: list[Part]) -> str:
    """Of the first plain text, else of the first HTML."""
    texts = [part for part in parts if part.is_leaf and part.disposition.word != "attachment"]
    plain = next((part for part in texts if part.media_type == "text/plain"), None)
    rich = next((part for part in texts if part.media_type == "text/html"), None)
    for part in (plain, rich):
        if part is not None:
            raw, _ = decode(octets[part.start : min(part.end, part.start + MAX_PART)], part.encoding)
            text = decode_octets(raw, part.content_type.first("charset"))
            found = _lines(_plain_of(text) if part is rich else text)
            if found:
                return found
    return ""


def _plain_of(text: str) -> str:
    for start, end in _UNSHOWN:
        text = _cut(text, start, end)
    return html.unescape(_TAG.sub(" ", _BREAK.sub("\n", text)))


def _cut(text: str, start: str, end: str) -> str:
    """Without each region; one that is not closed goes to the end."""
    low = text.lower()
    if len(low) != len(text):
        text = low
    out, done = [], 0
    while (at := low.find(start, done)) >= 0:
        out.append(text[done:at])
        closing = low.find(end, at + len(start))
        done = low.find(">", closing) + 1 if closing >= 0 else 0
        if not done:
            return " ".join(out)
    return " ".join((*out, text[done:]))


def _lines(text: str) -> str:
    lines = (_BLANKS.sub(" ", safe(line, MAX_TEXT)) for line in text.replace("\r", "\n").split("\n"))
    return _LINES.sub("\n\n", "\n".join(lines)).strip()


def _files(parts: list[Part]) -> Iterator[str]:
    named = [part for part in parts if part.names]
    for part in named[:MAX_FILES]:
        yield safe(part.names[0], 100)
    if len(named) > MAX_FILES:
        yield f"and {len(named) - MAX_FILES} more"
