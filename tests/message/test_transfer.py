"""Base64, quoted-printable and uuencoded text, whole and broken."""

import binascii
from base64 import b64encode, encodebytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.message.transfer import (
    IDENTITIES,
    decode,
    decode_base64,
    decode_loose_base64,
    decode_quoted_printable,
    uuencoded_files,
)
from tests.support.hostile import uuencoded


def test_base64_of_the_rfc() -> None:
    """RFC 4648 10."""
    vectors = {b"": b"", b"Zg==": b"f", b"Zm8=": b"fo", b"Zm9v": b"foo", b"Zm9vYg==": b"foob", b"Zm9vYmFy": b"foobar"}
    for text, octets in vectors.items():
        assert decode(text, "base64") == (octets, True)


def test_quoted_printable_of_the_rfc() -> None:
    """RFC 2045 6.7."""
    text = b"Now's the time =\r\nfor all folk to come=\r\n to the aid of their country.=20=3D"
    octets = b"Now's the time for all folk to come to the aid of their country. ="
    assert decode(text, "quoted-printable") == (octets, True)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (b"Zg=\r\n=", b"f"),
        (b"Zg", b"f"),
        (b"Zm9", b"fo"),
        (b"Zm9vY", b"foo"),
        (b"Z", b""),
        (b"=", b""),
        (b"====", b""),
        (b"!Z*m&9.v", b"foo"),
        (b"Zm9v\0\xff", b"foo"),
        (b"Zg==Zm8=Zm9v", b"ffofoo"),
        (b"Zg==\r\nZg==\r\n", b"ff"),
    ],
)
def test_broken_base64_gives_what_it_has(text: bytes, octets: bytes) -> None:
    assert decode_base64(text) == octets


@pytest.mark.parametrize("text", [b"Zg=\r\nZg==", b"Zm9vY", b"Zm9", b"!Zm9v", b"Zm9v-_", b"Zg", b"Zm9v\r\n=Zm9v"])
def test_broken_base64_is_told(text: bytes) -> None:
    assert not decode(text, "base64")[1]


@pytest.mark.parametrize("text", [b"Zm 9v\r\n", b"\tZm9v \r\n\r\n", b"Zg\r\n==\r\n"])
def test_blanks_in_base64_are_nothing_odd(text: bytes) -> None:
    assert decode(text, "base64")[1]


def test_loose_base64_leaves_boundaries_out() -> None:
    assert decode_loose_base64(b"Zm9v\r\n--next part--\r\nZm9v") == b"foofoo"


@pytest.mark.parametrize(
    ("text", "octets", "is_right"),
    [
        (b"=3d=3D", b"==", True),
        (b"a= \t\r\nb", b"ab", True),
        (b"a=\nb", b"ab", True),
        (b"a=", b"a", True),
        (b"=ZZ", b"=ZZ", False),
        (b"=4", b"=4", False),
        (b"\xff=FF", b"\xff\xff", True),
    ],
)
def test_quoted_printable(text: bytes, octets: bytes, is_right: bool) -> None:
    assert decode(text, "quoted-printable") == (octets, is_right)


@pytest.mark.parametrize("encoding", IDENTITIES)
def test_identities_leave_all_as_it_is(encoding: str) -> None:
    assert decode(b"=41\r\n\0", encoding) == (b"=41\r\n\0", True)


def test_an_unknown_encoding_is_told_and_leaves_all_as_it_is() -> None:
    assert decode(b"=41", "x-rot47") == (b"=41", False)


@pytest.mark.parametrize("encoding", ["x-uuencode", "uuencode", "x-uue"])
def test_uuencoded_parts(encoding: str) -> None:
    assert decode(uuencoded(b"a", b"hello" * 30), encoding) == (b"hello" * 30, True)
    assert decode(b"nothing", encoding) == (b"nothing", False)


def test_uuencoded_files_of_a_text_have_name_and_octets() -> None:
    text = b"Hello,\r\n\r\n" + uuencoded(b"a b.exe", b"MZ" * 99) + b"and\r\n" + uuencoded(b"b.txt", b"x") + b"Bye\r\n"
    assert uuencoded_files(text, 9) == [(b"a b.exe", b"MZ" * 99), (b"b.txt", b"x")]
    assert uuencoded_files(text, 1) == [(b"a b.exe", b"MZ" * 99)]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\r\n", b"\n"),
        lambda text: text.replace(b"`\r\nend\r\n", b""),
        lambda text: text.replace(b"`\r\n", b" \r\n"),
        lambda text: text.replace(b"begin 644", b"begin 0644"),
        lambda text: text.replace(b"\r\n", b"x\r\n", 3).replace(b"a.exex", b"a.exe"),
    ],
)
def test_uuencoded_files_that_are_a_bit_off(change: object) -> None:
    text = change(uuencoded(b"a.exe", b"MZ" * 99))  # type: ignore[operator]
    assert uuencoded_files(text, 1) == [(b"a.exe", b"MZ" * 99)]


@pytest.mark.parametrize(
    "text", [b"", b"begin 644 a\r\n", b"begin to\r\n#86)C\r\nend\r\n", b"x begin 644 a\r\n#86)C\r\n"]
)
def test_texts_without_uuencoded_files(text: bytes) -> None:
    assert uuencoded_files(text, 9) == []


@given(st.binary(max_size=400), st.sampled_from(["base64", "quoted-printable", "", "x"]))
@example(b"=" * 50, "base64")
def test_any_octets_decode_to_no_more_than_they_are(body: bytes, encoding: str) -> None:
    octets, _ = decode(body, encoding)
    assert len(octets) <= len(body)


UU_PIECES = [b"begin 644 a\r\n", b"\r\n", b"\n", b"M", b"#86)C", b"`", b"end", b"!", b"\xff", b" ", b"~"]


@given(st.lists(st.sampled_from(UU_PIECES), max_size=40).map(b"".join))
def test_any_octets_give_uuencoded_files_or_none(text: bytes) -> None:
    decode(text, "x-uuencode")
    assert len(uuencoded_files(text, 3)) <= 3


def test_lines_that_promise_more_than_they_hold_give_what_they_hold() -> None:
    text = b"begin 644 a\n" + b"M\n" * 1000 + b"end\n"
    assert sum(len(octets) for _, octets in uuencoded_files(text, 1)) <= len(text)


@given(st.binary(max_size=400))
def test_what_is_encoded_decodes_to_itself(octets: bytes) -> None:
    lines = encodebytes(octets).replace(b"\n", b"\r\n")
    assert decode(lines, "base64") == (octets, True)
    assert decode_quoted_printable(b"".join(b"=%02X" % octet for octet in octets)) == octets
    if octets:
        assert decode(uuencoded(b"a", octets), "x-uuencode") == (octets, True)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_padding_in_the_middle_loses_nothing(one: bytes, two: bytes) -> None:
    assert decode_base64(b64encode(one) + b64encode(two)) == one + two


@given(st.binary(max_size=100), st.integers(0, 200))
def test_a_cut_off_end_keeps_the_beginning(octets: bytes, at: int) -> None:
    assert octets.startswith(decode_base64(b64encode(octets)[:at]))


def test_padding_away_from_its_place_is_read_over() -> None:
    """As lenient readers do, who leave out all that is no letter of base64."""
    text = b64encode(b"hello world!")
    octets, is_right = decode(text[:2] + b"=" + text[2:], "base64")
    assert not is_right
    assert b"world!" in octets


def test_lines_of_uuencoded_data_are_as_binascii_writes_them() -> None:
    octets = bytes(range(256))
    lines = b"".join(binascii.b2a_uu(octets[at : at + 45]) for at in range(0, 256, 45))
    assert uuencoded_files(b"begin 600 x\n" + lines + b"`\nend\n", 1) == [(b"x", octets)]
