"""Commands off the wire: any cut of the octets gives the same events, and every bound holds."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.imap.wire import (
    MAX_DISCARDED,
    Bounds,
    CommandReader,
    Continue,
    Event,
    RawCommand,
    Refused,
    astring,
    literal,
    nstring,
    string,
)

BOUNDS = Bounds(200, lambda start: 5000 if b"APPEND" in start else 50)


def events(pieces: Sequence[bytes], bounds: Bounds = BOUNDS) -> list[object]:
    reader = CommandReader(bounds)
    found: list[object] = []
    for piece in pieces:
        reader.feed(piece)
        while (event := reader.next()) is not None:
            found.append(plain(event))
            if isinstance(event, Refused) and event.is_fatal:
                return found
    return found


def plain(event: Event) -> object:
    if isinstance(event, RawCommand):
        return [*event.texts], [each.octets() for each in event.literals]
    return event


CASES = [
    (b"a NOOP\r\n", [([b"a NOOP"], [])]),
    (b"a NOOP\nb NOOP\r\n", [([b"a NOOP"], []), ([b"b NOOP"], [])]),
    (b"a LOGIN {3}\r\nbob {2}\r\npw\r\n", [Continue(), Continue(), ([b"a LOGIN ", b" ", b""], [b"bob", b"pw"])]),
    (b"a LOGIN {3+}\r\nb\r\n {0+}\r\n\r\n", [([b"a LOGIN ", b" ", b""], [b"b\r\n", b""])]),
    (b"a APPEND x ~{3+}\r\n\0\r\n\r\n", [([b"a APPEND x ", b""], [b"\0\r\n"])]),
    (b"a X {51}\r\nb NOOP\r\n", [Refused(b"a X ", is_literal=True, is_fatal=False), ([b"b NOOP"], [])]),
    (
        b"a X {51+}\r\n" + b"z" * 51 + b" more\r\nb NOOP\r\n",
        [Refused(b"a X ", is_literal=True, is_fatal=False), ([b"b NOOP"], [])],
    ),
    (b"a X {99999999999999999999+}\r\n", [Refused(b"a X ", is_literal=True, is_fatal=True)]),
    (b"a X {10000000000}\r\nb N\r\n", [Refused(b"a X ", is_literal=True, is_fatal=False), ([b"b N"], [])]),
    (b"a X {3\r\n", [([b"a X {3"], [])]),
    (b"a X {-3}\r\n", [([b"a X {-3}"], [])]),
    (b"\r\n", [([b""], [])]),
]


@pytest.mark.parametrize(("octets", "expected"), CASES)
def test_each_case_whole_octet_by_octet_and_with_more_behind(octets: bytes, expected: list[object]) -> None:
    assert events([octets]) == expected
    assert events([octets[at : at + 1] for at in range(len(octets))]) == expected
    is_fatal = any(isinstance(each, Refused) and each.is_fatal for each in expected)
    assert events([octets + b"z Q\r\n"]) == [*expected, *([] if is_fatal else [([b"z Q"], [])])]


@given(st.lists(st.sampled_from([case[0] for case in CASES]), max_size=4), st.lists(st.integers(1, 30)))
def test_any_cut_gives_the_same(octets: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(octets)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    assert events([*pieces, whole[at:]]) == events([whole])


@pytest.mark.parametrize("octets", [b"a" * 201, b"a " * 5000, b"a" * 201 + b"\r\n"])
def test_an_endless_line_ends_the_connection(octets: bytes) -> None:
    (event,) = events([octets])
    assert event == Refused(octets[:100], is_literal=False, is_fatal=True)


def test_what_is_refused_and_not_waited_for_is_read_and_dropped_without_memory() -> None:
    reader = CommandReader(BOUNDS)
    reader.feed(b"a X {%d+}\r\n" % MAX_DISCARDED)
    assert isinstance(reader.next(), Refused)
    for _ in range(MAX_DISCARDED // (1 << 20)):
        reader.feed(b"x" * (1 << 20))
        assert reader.next() is None
    reader.feed(b"\r\nb NOOP\r\n")
    event = reader.next()
    assert isinstance(event, RawCommand)
    assert event.texts == [b"b NOOP"]


def test_too_many_literals_are_refused() -> None:
    found = events([b"a APPEND" + b" {1+}\r\nx" * 101 + b"\r\nb N\r\n"])
    assert found == [Refused(b"a APPEND ", is_literal=True, is_fatal=False), ([b"b N"], [])]


def test_literals_of_one_command_have_one_bound() -> None:
    found = events([b"a X {30+}\r\n" + b"x" * 30 + b" {30+}\r\n" + b"x" * 30 + b"\r\nb N\r\n"])
    assert found == [Refused(b"a X ", is_literal=True, is_fatal=False), ([b"b N"], [])]


@pytest.mark.parametrize(
    ("octets", "quoted", "atom"),
    [
        (b"", b'""', b'""'),
        (b"abc", b'"abc"', b"abc"),
        (b"a b", b'"a b"', b'"a b"'),
        (b"NIL", b'"NIL"', b'"NIL"'),
        (b'a"b', b'{3}\r\na"b', b'{3}\r\na"b'),
        (b"a\\b", b"{3}\r\na\\b", b"{3}\r\na\\b"),
        ("é".encode(), b"{2}\r\n\xc3\xa9", b"{2}\r\n\xc3\xa9"),
        (b"a\r\nb", b"{4}\r\na\r\nb", b"{4}\r\na\r\nb"),
        (b"a\0b", b"{3}\r\na?b", b"{3}\r\na?b"),
        (b"a(b", b'"a(b"', b'"a(b"'),
    ],
)
def test_what_cannot_be_quoted_is_a_literal(octets: bytes, quoted: bytes, atom: bytes) -> None:
    assert (string(octets), nstring(octets), astring(octets)) == (quoted, quoted, atom)
    assert nstring(None) == b"NIL"


@given(st.binary(max_size=2000))
def test_a_string_reads_back(octets: bytes) -> None:
    out = string(octets)
    if out.startswith(b"{"):
        assert out == literal(octets)
    else:
        assert out == b'"' + octets + b'"'
