"""Content-Transfer-Encodings (RFC 2045 6) read as mail programs read them: as far as they go, and never an error.

What is wrong with them is told beside what they give. All work is linear.
"""

import binascii
import re
from collections.abc import Iterator

_DASHED_LINE = re.compile(rb"^--.*$", re.MULTILINE)
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FOREIGN = bytes(octet for octet in range(256) if octet not in _LETTERS + b"=")
_PADDING = re.compile(rb"=+")
_PIECE = 256 * 1024
MAX_PADDING = 1000  # of one body that may end runs
_SOFT_BREAK = re.compile(rb"=[ \t]*\r?\n")
_BROKEN_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*(?:\r?\n|\Z))")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n", re.MULTILINE)

IDENTITIES = ("7bit", "8bit", "binary", "")
MAX_UU_LINE = 45  # octets that a line of uuencoded data may hold


def decode_base64(body: bytes) -> bytes:
    """All that is no letter is left out. Padding ends a run where it stands in its place, and is left out elsewhere;
    what is cut short keeps what it has.
    """
    letters = body.translate(None, _FOREIGN)
    runs = letters.split(b"=") if letters.count(b"=") <= MAX_PADDING else [letters.replace(b"=", b"")]
    if len(runs) > 1 and not _is_padding_in_place(letters):
        runs = [letters.replace(b"=", b"")]
    return b"".join(_decode_run(run) for run in runs if run)


def _decode_run(letters: bytes) -> bytes:
    whole = letters[:-1] if len(letters) % 4 == 1 else letters
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))


def _is_padding_in_place(letters: bytes) -> bool:
    at = 0
    for match in _PADDING.finditer(letters):
        if (match.end() - at) % 4 or match.end() - match.start() > 2:
            return False
        at = match.end()
    return True


def decode_loose_base64(body: bytes) -> bytes:
    """The same where the end is not known: lines that begin with dashes are boundaries."""
    return decode_base64(_DASHED_LINE.sub(b"", body))


def decode_quoted_printable(body: bytes) -> bytes:
    return b"".join(binascii.a2b_qp(_SOFT_BREAK.sub(b"", piece)) for piece in _pieces(body))


def _pieces(body: bytes) -> Iterator[bytes]:
    """Whole lines, so many at a time that what is made of them is no multiple of the message."""
    at = 0
    while at < len(body):
        end = body.find(b"\n", at + _PIECE)
        end = len(body) if end < 0 else end + 1
        yield body[at:end]
        at = end


def decode(body: bytes, encoding: str) -> tuple[bytes, bool]:
    """A body's octets, and whether it keeps to its encoding. encoding: in lower case."""
    match encoding:
        case "base64":
            return decode_base64(body), _is_plain_base64(body)
        case "quoted-printable":
            return decode_quoted_printable(body), _BROKEN_ESCAPE.search(body) is None
        case "x-uuencode" | "uuencode" | "x-uue":
            found = uuencoded_files(body, 1)
            return (found[0][1], True) if found else (body, False)
        case _:
            return body, encoding in IDENTITIES


def _is_plain_base64(body: bytes) -> bool:
    """Only letters of base64 in lines, and padding at the end alone."""
    if body.translate(None, _LETTERS + b"=\r\n \t"):
        return False
    found = body.translate(None, b"\r\n \t")
    padding = found.find(b"=")
    return len(found) % 4 == 0 and (padding < 0 or (len(found) - padding <= 2 and not found[padding:].strip(b"=")))


def uuencoded_files(text: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    """Name and octets of each file that is uuencoded in a text; at most `limit`."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while len(found) < limit and (match := _UU_BEGIN.search(text, at)) is not None:
        end = text.find(b"\nend", match.end() - 1)
        at = end if end >= 0 else len(text)
        lines = (line for piece in _pieces(text[match.end() : at]) for line in piece.splitlines())
        octets = b"".join(filter(None, map(_uu_line, lines)))
        if octets:
            found.append((match[1].strip(), octets))
    return found


def _uu_line(line: bytes) -> bytes:
    """No more than its letters hold, whatever the first of them says; some encoders put letters behind."""
    size = (line[:1] or b"\0")[0] - 32 & 63
    held = (len(line) - 1) * 3 // 4
    if not 0 < size <= MAX_UU_LINE or held < 1:
        return b""
    try:
        return binascii.a2b_uu(line[: (size * 4 + 5) // 3])[:held]
    except binascii.Error:
        return b""
