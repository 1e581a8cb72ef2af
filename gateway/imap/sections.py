"""Sections of a message (RFC 3501 6.4.5): a header that is at hand, or ranges of the message's octets.

Nothing is parsed here but names of fields: where parts lie was worked out at delivery.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.imap.command import Section
from gateway.imap.ports import Details
from gateway.imap.summary import MESSAGE, places_from_json

MAX_HEADER = 256 * 1024  # octets of an embedded message's header

_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Range:
    """Octets of the message's file."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Inner:
    """An embedded message: where its header ends is seen only once it is read."""

    whole: Range


def place_of(section: Section, message: Details) -> bytes | Range | Inner | None:
    """Its octets, or where they lie; None: there is no such part."""
    if not section.part:
        size = len(message.header)
        match section.text:
            case "":
                return Range(0, message.size)
            case "TEXT":
                return Range(size, message.size - size)
            case _:
                return of_header(section, message.header)
    places = places_from_json(message.places)
    place = next((each for each in places if each.number == section.part), None)
    if place is None:
        return None
    match section.text:
        case "":
            return Range(place.body, place.end - place.body)
        case "MIME":
            return Range(place.header, place.body - place.header)
    return Inner(Range(place.body, place.end - place.body)) if place.kind == MESSAGE else None


def of_inner(section: Section, whole: Range, start: bytes) -> bytes | Range:
    """start: of the embedded message, MAX_HEADER at most."""
    if start.startswith(b"\r\n"):
        size = 2
    else:
        blank = start.find(b"\r\n\r\n")
        size = len(start) if blank < 0 else blank + 4
    if section.text == "TEXT":
        return Range(whole.start + size, whole.size - size)
    return of_header(section, start[:size])


def of_header(section: Section, header: bytes) -> bytes:
    if section.text == "HEADER":
        return header
    return fields_of(header, section.fields, is_without=section.text.endswith("NOT"))


def fields_of(header: bytes, names: Iterable[bytes], *, is_without: bool) -> bytes:
    """Those fields, or all but them, in their order, and a blank line."""
    wanted = {name.lower() for name in names}
    found = [match[0] for match in _FIELD.finditer(header) if (match[1].lower() in wanted) is not is_without]
    return b"".join(found) + b"\r\n"


def cut(section: Section, size: int) -> tuple[int, int]:
    """First octet and how many, of so many that there are."""
    if section.partial is None:
        return 0, size
    start, wanted = section.partial
    start = min(start, size)
    return start, min(wanted, size - start)
