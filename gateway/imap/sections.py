"""Sections of a message (RFC 3501 6.4.5): a header that is at hand, or ranges of the message's octets.

Nothing is parsed here but names of fields: where parts lie was worked out at delivery.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import overload

from gateway.imap.command import Section
from gateway.imap.ports import Details
from gateway.imap.summary import MESSAGE, places_from_json

MAX_HEADER = 256 * 1024  # octets of an embedded message's header

MAX_NAMES = 1000  # of fields that one section remembers

_FIELD = re.compile(rb"^(([!-9;-~]++)[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)", re.MULTILINE)


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
    return _Fields(section.fields, is_without=section.text.endswith("NOT")).of(header)


def header_section(section: Section) -> Callable[[bytes], bytes]:
    """What a section of a message's header, its part that is asked for too, is made of the header by."""
    if section.text == "HEADER":
        return lambda header: cut(section, header)
    fields = _Fields(section.fields, is_without=section.text.endswith("NOT"))
    return lambda header: cut(section, fields.of(header))


class _Fields(dict[bytes, bool]):
    """By the name as it is written: is the field wanted?"""

    def __init__(self, names: Collection[bytes], *, is_without: bool) -> None:
        super().__init__()
        self._names = {name.lower() for name in names}
        self._is_without = is_without

    def __missing__(self, name: bytes) -> bool:
        is_wanted = (name.lower() in self._names) is not self._is_without
        if len(self) < MAX_NAMES:
            self[name] = is_wanted
        return is_wanted

    def of(self, header: bytes) -> bytes:
        """Those that are wanted, in their order, and a blank line."""
        found = [field for field, name in _FIELD.findall(header) if self[name]]
        return b"".join(found) + b"\r\n"


@overload
def cut(section: Section, place: bytes) -> bytes: ...
@overload
def cut(section: Section, place: bytes | Range) -> bytes | Range: ...
def cut(section: Section, place: bytes | Range) -> bytes | Range:
    """What of it the section wants."""
    if section.partial is None:
        return place
    size = len(place) if isinstance(place, bytes) else place.size
    start, wanted = section.partial
    start = min(start, size)
    if isinstance(place, bytes):
        return place[start : start + wanted]
    return Range(place.start + start, min(wanted, size - start))
