"""Names of mailboxes on the wire: modified UTF-7, or UTF-8 once the client asks for it; and the patterns of LIST."""

import re
import unicodedata

import re2

from gateway.core.foldernames import INBOX, decode_utf7, encode_utf7, normal_name

MAX_PATTERN = 1000  # characters

_INBOX_FIRST = re.compile(r"INBOX(?:[/*%]|\Z)", re.IGNORECASE)
_WILDCARDS = re.compile(r"([*%]+)")


def decode_name(octets: bytes, *, is_utf8: bool) -> str:
    """A mailbox's name as a client gives it, in its normal form. Raises ValueError for one that nobody may have."""
    return normal_name(octets.decode("utf-8") if is_utf8 else decode_utf7(octets))


def encode_name(name: str, *, is_utf8: bool) -> bytes:
    return name.encode() if is_utf8 else encode_utf7(name)


class Pattern:
    """What LIST asks for (RFC 3501 6.3.8). RE2's time is linear in the name, however many wildcards there are."""

    def __init__(self, reference: str, pattern: str) -> None:
        whole = unicodedata.normalize("NFC", reference + pattern)
        if _INBOX_FIRST.match(whole):
            whole = INBOX + whole[len(INBOX) :]
        out = []
        for piece in _WILDCARDS.split(whole[:MAX_PATTERN]):
            if piece[:1] in ("*", "%"):
                out.append(".*" if "*" in piece else "[^/]*")
            else:
                out.append(re2.escape(piece))  # type: ignore[no-untyped-call]
        self._search = re2.compile("(?s)^" + "".join(out) + "$")  # type: ignore[no-untyped-call]

    def matches(self, name: str) -> bool:
        return self._search.search(name) is not None
