"""Content-Transfer-Encodings (RFC 2045 6) read as mail programs read them: as far as they go, and never an error.

What is wrong with them is told beside what they give. All work is linear.
"""

import binascii
import re

_DASHED_LINE = re.compile(rb"^--.*$", re.MULTILINE)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_SOFT_BREAK = re.compile(rb"=[ \t]*\r?\n")
_BROKEN_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*(?:\r?\n|\Z))")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} ([^\r\n]{1,255})\r?\n", re.MULTILINE)

IDENTITIES = ("7bit", "8bit", "binary", "")
MAX_UU_LINE = 45  # octets that a line of uuencoded data may hold


def decode_base64(body: bytes) -> bytes:
    """Each run between paddings for itself; what is cut short keeps what it has."""
    letters = _NOT_BASE64.sub(b"", body)
    out = []
    for run in letters.split(b"="):
        whole = run[: len(run) - 1] if len(run) % 4 == 1 else run
        out.append(binascii.a2b_base64(whole + b"=" * (-len(whole) % 4)))
    return b"".join(out)


def decode_loose_base64(body: bytes) -> bytes:
    """The same where the end is not known: lines that begin with dashes are boundaries."""
    return decode_base64(_DASHED_LINE.sub(b"", body))


def decode_quoted_printable(body: bytes) -> bytes:
    return binascii.a2b_qp(_SOFT_BREAK.sub(b"", body))


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
    found = _NOT_BASE64.sub(b"", body)
    padding = found.find(b"=")
    if padding >= 0 and found[padding:].strip(b"="):
        return False
    foreign = body.translate(None, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n \t")
    return not foreign and len(found) % 4 == 0


def uuencoded_files(text: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    """Name and octets of each file that is uuencoded in a text; at most `limit`."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while len(found) < limit and (match := _UU_BEGIN.search(text, at)) is not None:
        end = text.find(b"\nend", match.end() - 1)
        at = end if end >= 0 else len(text)
        octets = b"".join(map(_uu_line, text[match.end() : at].splitlines()))
        if octets:
            found.append((match[1].strip(), octets))
    return found


def _uu_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        # Some encoders leave blanks in front or put letters behind: so many octets as the first letter says count.
        size = (line[:1] or b"\0")[0] - 32 & 63
        try:
            return binascii.a2b_uu(line[: (size * 4 + 5) // 3]) if 0 < size <= MAX_UU_LINE else b""
        except binascii.Error:
            return b""
