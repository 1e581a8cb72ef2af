"""Names of a user's mailboxes (RFC 3501 5.1): their one normal form, and modified UTF-7, as IMAP and Maildir++ write
them. INBOX is one name in any case; levels are parted by "/".
"""

import codecs
import re
import unicodedata
from binascii import Error, a2b_base64, b2a_base64

SEPARATOR = "/"
INBOX = "INBOX"
MAX_NAME = 200  # octets in UTF-8
MAX_LEVELS = 20
MAX_FOLDER = 230  # octets of a folder's name; 255 with what it is called while it goes

# Found now: who has given away its rights may not be able to read the standard library any more.
_UTF16 = codecs.lookup("utf-16-be")
_SHIFTED = re.compile(rb"&([^-]*)-")
_RUN = re.compile(r"[^\x20-\x7e]+|&")
_BASE64 = re.compile(rb"[A-Za-z0-9+,]+\Z")


def normal_name(name: str) -> str:
    """Raises ValueError."""
    name = unicodedata.normalize("NFC", name)
    levels = name.split(SEPARATOR)
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    if any(not level.strip() or level in (".", "..") or level != level.strip() for level in levels):
        raise ValueError("an empty level, or one of dots or blanks")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        raise ValueError("a control character")
    if any(char in "%*" for char in name):
        raise ValueError("a wildcard")
    if len(name.encode()) > MAX_NAME or len(levels) > MAX_LEVELS:
        raise ValueError(f"over {MAX_NAME} octets or {MAX_LEVELS} levels")
    if len(folder_name(name)) > MAX_FOLDER:
        raise ValueError(f"over {MAX_FOLDER} octets as a folder")
    return SEPARATOR.join(levels)


def folder_name(name: str) -> str:
    """Of a mailbox's folder below the user's Maildir, which is INBOX's own (Maildir++): levels are parted by dots, and
    a dot in a name is written as %2E, which no name has otherwise.
    """
    return "" if name == INBOX else "." + encode_utf7(name.replace(".", "%2E")).decode("ascii").replace("/", ".")


def name_of_folder(folder: str) -> str | None:
    """The other way round; None for one that no mailbox has."""
    try:
        levels = [decode_utf7(level.encode("ascii")) for level in folder[1:].split(".")]
        name = SEPARATOR.join(level.replace("%2E", ".") for level in levels)
        is_one = normal_name(name) == name and folder_name(name) == folder
    except ValueError:
        return None
    return name if is_one else None


def encode_utf7(name: str) -> bytes:
    return _RUN.sub(_encode_run, name).encode("ascii")


def _encode_run(match: re.Match[str]) -> str:
    if match[0] == "&":
        return "&-"
    octets, _ = _UTF16.encode(match[0], "surrogatepass")
    return "&" + b2a_base64(octets, newline=False).decode().rstrip("=").replace("/", ",") + "-"


def decode_utf7(octets: bytes) -> str:
    """Raises ValueError for anything but the one form that a name has."""
    if not octets.isascii() or b"&" in _SHIFTED.sub(b"", octets):
        raise ValueError("no modified UTF-7")
    try:
        name = "".join(
            part.decode("ascii") if number % 2 == 0 else _decode_run(part)
            for number, part in enumerate(_SHIFTED.split(octets))
        )
    except (Error, UnicodeDecodeError) as error:
        raise ValueError("no modified UTF-7") from error
    if encode_utf7(name) != octets:
        raise ValueError("no modified UTF-7: a letter is shifted that need not be, or twice")
    return name


def _decode_run(run: bytes) -> str:
    if not run:
        return "&"
    if not _BASE64.match(run):
        raise ValueError("no modified UTF-7")
    run = run.replace(b",", b"/")
    return _UTF16.decode(a2b_base64(run + b"=" * (-len(run) % 4)))[0]
