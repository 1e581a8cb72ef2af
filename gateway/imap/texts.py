"""What SEARCH compares: fields and texts of a message as people read them, found without parsing all of it anew.

What is found is what `message.header` and `message.mime` would find. Where a message's parts lie was worked out at
delivery; a message of which only the beginning is looked at is walked as it is.
"""

import re
from functools import lru_cache

from gateway.imap.summary import LEAF, places_from_json
from gateway.message.header import MAX_DECODED, Header, decode_octets, decode_text, parse_header
from gateway.message.mime import TEXT, walk
from gateway.message.parameters import parse_parameters
from gateway.message.transfer import decode

MAX_TEXT = 4 * 1024 * 1024  # octets of a message that BODY and TEXT look into
MAX_KEPT = 200  # octets of a Content-Type whose meaning is remembered

_NAME = re.compile(r"[!-9;-~]+", re.ASCII)
_WORD = re.compile(r"[!-~]+", re.ASCII)


def values_of(header: bytes, name: str) -> list[bytes]:
    """Of all fields of this name, still folded. header: as the store keeps it; name: in lower case."""
    search = _finder(name)
    return [] if search is None else [value.rstrip(b"\r") for value in search.findall(b"\n" + header)]


@lru_cache(256)
def _finder(name: str) -> re.Pattern[bytes] | None:
    """None: no field has such a name."""
    if not _NAME.fullmatch(name):
        return None
    # A pattern that begins with an octet in one case is searched for much faster than one that ignores case.
    letters = "".join(f"[{each}{each.upper()}]" if each.isalpha() else re.escape(each) for each in name).encode()
    return re.compile(rb"\n" + letters + rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)")


def field_has(header: bytes, name: str, wanted: str) -> bool:
    """Is this, in lower case, in a field of this name as it is read?"""
    search, plain = _finder(name), _plain(wanted)
    for value in () if search is None else search.findall(b"\n" + header):
        if plain is not None and value.isascii() and b"=?" not in value:
            if plain in value[:MAX_DECODED].lower():
                return True
        elif wanted in decode_text(value.rstrip(b"\r")).lower():
            return True
    return False


@lru_cache(16)
def _plain(wanted: str) -> bytes | None:
    """Octets that are found in a value as it is written if they are in it as it is read, where nothing is decoded:
    blanks may be folded or stripped.
    """
    return wanted.encode() if _WORD.fullmatch(wanted) else None


def header_has(header: bytes, wanted: str) -> bool:
    """The same of all fields, names and values."""
    # Without blanks and colons it lies in one name or one value.
    is_plain = b"=?" not in header and header.isascii() and _NAME.fullmatch(wanted) is not None
    if is_plain and wanted.encode() not in header.lower():
        return False
    return wanted in _decoded(parse_header(header))


def _decoded(header: Header) -> str:
    return "\n".join(f"{field.name}: {decode_text(field.value)}" for field in header.fields).lower()


def texts_of(octets: bytes, places: bytes, size: int) -> list[str]:
    """Of all parts that are text, decoded, in lower case. octets: MAX_TEXT at most of the message's; places: of
    `summary.places_to_json`; size: of the whole message.
    """
    if size != len(octets):
        return _texts_by_walk(octets[:MAX_TEXT])
    found = []
    for place in places_from_json(places):
        form = _form_at(octets[place.header : place.body]) if place.kind == LEAF else None
        if form is not None:
            encoding, charset = form
            raw, _ = decode(octets[place.body : place.end], encoding)
            found.append(decode_octets(raw, charset).lower())
    return found


def _form_at(header: bytes) -> tuple[str, str] | None:
    """Encoding and charset of a part with this header; None: it is no text."""
    content_type, encoding = (next(iter(values_of(header, name)), None) for name in _FORM_FIELDS)
    is_short = len(content_type or b"") + len(encoding or b"") <= MAX_KEPT
    return _kept_form(content_type, encoding) if is_short else _form(content_type, encoding)


_FORM_FIELDS = ("content-type", "content-transfer-encoding")


def _form(content_type: bytes | None, encoding: bytes | None) -> tuple[str, str] | None:
    found = TEXT if content_type is None else parse_parameters(content_type)
    if "/" in found.word and not found.word.startswith("text/"):  # RFC 2045 5.2: what is no type is a text
        return None
    return "" if encoding is None else parse_parameters(encoding).word, found.first("charset")


_kept_form = lru_cache(256)(_form)


def _texts_by_walk(octets: bytes) -> list[str]:
    found = []
    for part in walk(octets).parts:
        if part.is_leaf and part.media_type.startswith("text/"):
            raw, _ = decode(octets[part.start : part.end], part.encoding)
            found.append(decode_octets(raw, part.content_type.first("charset")).lower())
    return found
