"""The parsers of what IMAP clients say, and of messages that IMAP tells of, as further targets (`targets`)."""

import re

from gateway.imap.parser import parse_command
from gateway.imap.summary import places_to_json, summarise
from gateway.imap.syntax import BadCharset, BadCommand
from gateway.imap.wire import Bounds, CommandReader, Continue, Event, RawCommand, Refused
from tests.fuzz.targets import target

LINE, LITERAL = 8192, 4096
_STRING = re.compile(rb'"(?:[^"\\\r\n]|\\["\\])*"')
_LITERAL = re.compile(rb"\{(\d+)\}\r\n")


def _events(data: bytes, size: int) -> list[Event]:
    """Of all that comes, in pieces of that size."""
    reader = CommandReader(Bounds(LINE, lambda start: LITERAL))
    found: list[Event] = []
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
        while (event := reader.next()) is not None:
            found.append(event)
            if isinstance(event, Refused) and event.is_fatal:
                return found
    return found


def _told(event: Event) -> object:
    if isinstance(event, RawCommand):
        return event.texts, [literal.octets() for literal in event.literals]
    return type(event) if isinstance(event, Continue) else (event, type(event))


@target
def imap_wire(data: bytes) -> None:
    """Whatever the pieces, the same commands come out, within their bounds."""
    whole = _events(data, max(1, len(data)))
    for size in (1, 7, 100):
        if len(data) < 2000 or size > 1:
            assert [_told(event) for event in _events(data, size)] == [_told(event) for event in whole]
    for event in whole:
        if isinstance(event, RawCommand):
            assert sum(literal.size for literal in event.literals) <= LITERAL
            assert all(len(text) <= LINE + 2 for text in event.texts)


@target
def imap_command(data: bytes) -> None:
    """A command, or what is wrong with it; never another error."""
    for event in _events(data, max(1, len(data))):
        if isinstance(event, RawCommand):
            for is_utf8 in (False, True):
                flaw = _flaw(event, is_utf8=is_utf8)
                assert "\r" not in flaw
                assert "\n" not in flaw


def _flaw(raw: RawCommand, *, is_utf8: bool) -> str:
    try:
        parse_command(raw, is_utf8=is_utf8)
    except (BadCommand, BadCharset) as error:
        return str(error)
    return ""


@target
def imap_summary(data: bytes) -> None:
    """What is told of a message is one value in IMAP's form, whatever the message."""
    octets = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = summarise(octets)
    for value in (found.envelope, found.structure, found.body):
        _check_value(value)
    assert octets.replace(b"\0", b"?").startswith(found.header.replace(b"\0", b"?"))
    places_to_json(found.places)


def _check_value(value: bytes) -> None:
    """Parentheses are in pairs; what is no string, literal, NIL or number does not occur."""
    depth = at = 0
    while at < len(value):
        if (string := _STRING.match(value, at)) is not None:
            at = string.end()
            continue
        if (literal := _LITERAL.match(value, at)) is not None:
            at = literal.end() + int(literal[1])
            assert at <= len(value)
            continue
        depth += {40: 1, 41: -1}.get(value[at], 0)
        assert depth >= 0
        assert value[at : at + 1] in b"()NIL 0123456789", value[at : at + 40]
        at += 1
    assert depth == 0
