"""What stands behind each field that announces an encoding, wherever it is: for messages about whose structure readers
disagree. Nothing here hangs on boundaries; each octet is looked at a bounded number of times.
"""

import re
from collections.abc import Iterator

from gateway.message.transfer import decode_loose_base64, decode_quoted_printable

MAX_SECTIONS = 200

_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:(?:[ \t\r\n]|\([^()\r\n]{0,200}\)){0,100}(base64|quoted-printable)\b",
    re.IGNORECASE | re.MULTILINE,
)
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")


def encoded_sections(octets: bytes) -> Iterator[bytes]:
    """Each decoded, from the blank line behind its field to the next such field; the first MAX_SECTIONS."""
    fields = []
    for match in _ENCODING.finditer(octets):
        fields.append(match)
        if len(fields) >= MAX_SECTIONS:
            break
    starts = [*(match.start() for match in fields), len(octets)]
    for match, end in zip(fields, starts[1:], strict=True):
        blank = _BLANK_LINE.search(octets, match.end(), end)
        if blank is not None:
            body = octets[blank.end() : end]
            yield decode_loose_base64(body) if match[1].lower() == b"base64" else decode_quoted_printable(body)
