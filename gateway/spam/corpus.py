"""Messages to learn from: files, folders, mbox and Maildir; and corpora sorted as ham/SOURCE and spam/SOURCE."""

import mailbox
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.message.mime import walk
from gateway.spam.structure import value_of
from gateway.spam.tokens import Tokens, tokenise
from gateway.spam.training import Example

MAX_MESSAGE = 8 * 1024 * 1024  # octets that are read of one
_NOISE = re.compile(r"[^a-z\u0080-\U0010ffff]+")
_REPLY = re.compile(r"^(?:\s*(?:re|aw|fwd?|sv|vs|antw|wg|tr)\s*(?:\[\d+\])?:|\s*\[[^\]]{0,60}\])*\s*", re.IGNORECASE)


def tokens_of(octets: bytes) -> Tokens:
    """Of a whole message, with whatever line ends."""
    text = octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")
    return tokenise(text, walk(text).parts)


def thread_of(octets: bytes) -> str:
    """What messages of one thread or campaign have in common: the subject without marks and numbers."""
    text = octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")
    subject = value_of(walk(text[: 256 * 1024]).parts[0].header, "Subject") or ""
    return _NOISE.sub(" ", _REPLY.sub("", subject).lower()).strip()


def messages_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each with the name to call it by. path: a message, an mbox, a Maildir, or a folder of messages."""
    if path.is_dir():
        if (path / "cur").is_dir() and (path / "new").is_dir():
            files = sorted((*(path / "cur").iterdir(), *(path / "new").iterdir()))
        else:
            files = sorted(each for each in path.rglob("*") if each.is_file())
        for each in files:
            yield from messages_in(each)
        return
    with path.open("rb") as file:
        octets = file.read(MAX_MESSAGE)
    if not octets.startswith(b"From ") or b"\n\nFrom " not in octets:
        yield str(path), octets.partition(b"\n")[2] if octets.startswith(b"From ") else octets
        return
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.iterkeys():
            yield f"{path}:{key}", box.get_bytes(key)[:MAX_MESSAGE]
    finally:
        box.close()


def sources_in(corpus: Path, without: frozenset[str] = frozenset()) -> Iterator[tuple[str, Example]]:
    """Of a corpus sorted as ham/SOURCE/… and spam/SOURCE/…: the source, and the example."""
    for label in ("ham", "spam"):
        for folder in sorted(each for each in (corpus / label).iterdir() if each.is_dir()):
            if folder.name not in without:
                for _, octets in messages_in(folder):
                    yield folder.name, Example(tokens_of(octets), label == "spam", thread_of(octets))
