"""The end of data is CRLF "." CRLF and nothing else, however the octets are cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.data import ContentScanner, DataDecoder, LineEndRepair

octets = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\0", b"\xff"]), max_size=40).map(
    b"".join
)
cuts = st.lists(st.integers(1, 6), min_size=1, max_size=20)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    out, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return out


def reference(data: bytes) -> tuple[bytes, bytes] | None:
    """Message and rest of a DATA stream, by lines; None when the end is missing."""
    message, rest = b"", data
    while True:
        line, crlf, tail = rest.partition(b"\r\n")
        if not crlf:
            return None
        if line == b".":
            return message, tail
        message += line.removeprefix(b".") + crlf
        rest = tail


@given(octets, cuts)
def test_any_cut_finds_the_same_end_and_the_same_message(data: bytes, sizes: list[int]) -> None:
    stream = data + b"\r\n.\r\nQUIT\r\n"
    decoder, message, fed = DataDecoder(), b"", 0
    for piece in pieces(stream, sizes):
        fed += len(piece)
        message += decoder.feed(piece)
        if decoder.done:
            break
    expected = reference(stream)
    assert expected is not None
    assert decoder.done
    assert (message, decoder.rest + stream[fed:]) == expected


@given(octets, cuts)
def test_scanner_counts_the_same_for_any_cut(data: bytes, sizes: list[int]) -> None:
    scanner = ContentScanner(1000)
    for piece in pieces(data, sizes):
        scanner.feed(piece)
    facts = scanner.finish()
    assert facts.size == len(data)
    assert facts.bare_lf == len(re.findall(rb"(?<!\r)\n", data))
    assert facts.bare_cr == len(re.findall(rb"\r(?!\n)", data))
    assert facts.has_nul == (b"\0" in data)
    assert facts.has_8bit == (b"\xff" in data)


@given(st.lists(st.integers(0, 50), max_size=10), cuts, st.integers(4, 52))
def test_a_line_over_the_limit_is_seen(lengths: list[int], sizes: list[int], limit: int) -> None:
    data = b"".join(b"x" * length + b"\r\n" for length in lengths)
    scanner = ContentScanner(limit)
    for piece in pieces(data, sizes):
        scanner.feed(piece)
    assert scanner.finish().has_long_line == (max((n + 2 for n in lengths), default=0) > limit)


@pytest.mark.parametrize(
    "ending",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r.\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\n.\r",
        b"\r.\n",
    ],
)
def test_no_other_sequence_ends_data(ending: bytes) -> None:
    decoder = DataDecoder()
    decoder.feed(b"Subject: x\r\n\r\nbody" + ending + b"MAIL FROM:<a@b.example>\r\n")
    assert not decoder.done


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\rM", b"\r.\r\n", b"\n.\r", b"\r.\n"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_a_lone_dot_between_bare_line_ends_is_seen(ending: bytes, size: int) -> None:
    decoder = DataDecoder()
    seen = False
    for piece in pieces(b"body" + ending, [size]):
        decoder.feed(piece)
        seen = seen or decoder.has_lone_dot()
    assert seen


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_honest_data_has_no_lone_dot(size: int) -> None:
    decoder = DataDecoder()
    for piece in pieces(b"a\r\n..\r\n.x\r\nb.\r\n\r\n.\r\n", [size]):
        decoder.feed(piece)
        assert not decoder.has_lone_dot()
    assert decoder.done


@given(octets, cuts)
def test_repair_leaves_no_bare_line_end(data: bytes, sizes: list[int]) -> None:
    repair = LineEndRepair()
    out = b"".join(repair.feed(piece) for piece in pieces(data + b"x", sizes))
    assert out == re.sub(rb"\r\n|\r|\n", b"\r\n", data) + b"x"
