"""Messages that another program has kept, one after the other: a Maildir(++) with its mailboxes, or an mbox."""

import contextlib
import email.utils
import mailbox
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX, name_of_folder
from gateway.core.mailflags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, bits_of_letters
from gateway.mailbox import maildir

_STATUS = {"R": SEEN, "A": ANSWERED, "F": FLAGGED, "D": DELETED, "T": DRAFT}
_KEYWORD = re.compile(r"(\d+) (\S+)\s*")
_ATOM = re.compile(r"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|~]{1,60}")


@dataclass(frozen=True, slots=True)
class Source:
    """mailbox: its name as a client sees it; date: when it came, seconds since the epoch."""

    mailbox: str
    octets: bytes
    flags: int
    keywords: tuple[str, ...]
    date: float


def messages_of_maildir(root: Path) -> Iterator[Source]:
    """Oldest first in each mailbox; folders that no mailbox can be are left out. Raises StoreError."""
    if not (root / "cur").is_dir():
        raise StoreError(f"{root}: no Maildir: it has no folder cur")
    yield from _messages_of_folder(root, INBOX)
    for folder in sorted(maildir.folders(root)):
        name = name_of_folder(folder)
        if name is not None:
            yield from _messages_of_folder(root / folder, name)


def _messages_of_folder(folder: Path, name: str) -> Iterator[Source]:
    words = _dovecot_keywords(folder)
    paths = [path for part in ("cur", "new") for path in (folder / part).glob("[!.]*") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path.name)):
        letters = path.name.partition(":2,")[2] if path.parent.name == "cur" else ""
        keywords = tuple(words[letter] for letter in letters if letter in words)
        yield Source(name, path.read_bytes(), bits_of_letters(letters), keywords, path.stat().st_mtime)


def _dovecot_keywords(folder: Path) -> dict[str, str]:
    """By the letter in file names."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (folder / "dovecot-keywords").read_text(encoding="utf-8").splitlines()
        found = (match for line in lines if (match := _KEYWORD.fullmatch(line)) is not None)
        return {chr(ord("a") + int(match[1])): match[2] for match in found if int(match[1]) < 26}
    return {}


def messages_of_mbox(path: Path, name: str) -> Iterator[Source]:
    """name: of the mailbox they are for. Status and X-Status tell flags, X-Keywords keywords. Raises StoreError."""
    with path.open("rb") as file:
        if file.read(5) not in (b"From ", b""):
            raise StoreError(f"{path}: no mbox: it does not begin with “From ”")
    box = mailbox.mbox(path, create=False)
    try:
        for key in box.iterkeys():
            message = box.get_message(key)
            octets = box.get_bytes(key)
            letters = f"{message.get('Status', '')}{message.get('X-Status', '')}"
            flags = sum(bit for letter, bit in _STATUS.items() if letter in letters)
            words = str(message.get("X-Keywords", "")).replace(",", " ").split()
            keywords = tuple(word for word in words if _ATOM.fullmatch(word))
            yield Source(name, octets, flags, keywords, _date(message))
    finally:
        box.close()


def _date(message: "mailbox.mboxMessage") -> float:
    """By its “From ” line, else by its Date, else now."""
    line = message.get_from().partition(" ")[2].strip()
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return max(0.0, time.mktime(time.strptime(line)))
    with contextlib.suppress(ValueError, OverflowError, OSError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(str(message["Date"])).timestamp())
    return time.time()
