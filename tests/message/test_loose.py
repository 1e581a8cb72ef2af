"""Encoded sections wherever they stand, without a look at boundaries."""

from base64 import encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.loose import MAX_SECTIONS, encoded_sections

BASE64 = b"Content-Transfer-Encoding: base64\r\n\r\n"


def test_each_section_ends_where_the_next_field_begins() -> None:
    octets = (
        b"Subject: x\r\n\r\n--B\r\n" + BASE64 + encodebytes(b"one") + b"\r\n--B\r\n"
        b"CONTENT-transfer-encoding:\r\n\t(c) Quoted-Printable\r\nX: y\r\n\r\nt=77o\r\n"
    )  # fmt: skip
    assert list(encoded_sections(octets)) == [b"one", b"two\r\n"]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: base64\r\nX: y\r\n",
        b"Content-Transfer-Encoding: 7bit\r\n\r\nZm9v",
        b"X-Content-Transfer-Encoding: base64\r\n\r\nZm9v",
        b"Content-Transfer-Encoding: base64x\r\n\r\nZm9v",
    ],
)
def test_what_is_no_section(octets: bytes) -> None:
    assert list(encoded_sections(octets)) == []


def test_a_boundary_in_the_section_does_not_spoil_what_follows() -> None:
    assert list(encoded_sections(BASE64 + b"Zm9v\r\n--B--\r\nZm9v")) == [b"foofoo"]


def test_there_are_at_most_so_many() -> None:
    found = list(encoded_sections((BASE64 + b"Zm9v\r\n") * (MAX_SECTIONS + 50)))
    assert len(found) == MAX_SECTIONS
    assert found[0] == b"foo"


@given(
    st.lists(
        st.sampled_from([BASE64, b"Zm9v", b"\r\n", b"\n \n", b"--B", b"=", b"\xff", b"Content-", b"("]), max_size=20
    )
)
def test_any_octets_give_no_more_than_they_are(pieces: list[bytes]) -> None:
    octets = b"".join(pieces)
    assert sum(map(len, encoded_sections(octets))) <= len(octets)
