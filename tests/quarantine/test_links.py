"""Links of digests: nobody can make one, or turn one into another."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.quarantine.links import MAX_TOKEN, Link, LinkAction, Links

LINKS = Links(b"a secret of 32 octets, for tests")
link = st.builds(
    Link,
    st.sampled_from(LinkAction),
    st.integers(0, 2**63 - 1),
    st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=16, max_size=16),
    st.integers(0, 2**31).map(lambda hour: hour * 3600.0),
)


@given(link)
def test_what_is_written_is_read(found: Link) -> None:
    token = LINKS.token(found)
    assert LINKS.read(token) == found
    assert len(token) <= MAX_TOKEN
    assert token.isascii()
    assert "=" not in token


@given(link, st.integers(0, 10_000), st.integers(0, 7))
def test_no_bit_can_be_changed(found: Link, at: int, bit: int) -> None:
    token = LINKS.token(found)
    octets = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    octets[at % len(octets)] ^= 1 << bit
    assert LINKS.read(urlsafe_b64encode(bytes(octets)).decode()) is None


@given(st.text(max_size=200))
def test_other_texts_are_no_links(text: str) -> None:
    assert LINKS.read(text) is None


@given(link)
def test_another_gateways_links_are_none_here(found: Link) -> None:
    assert Links(b"another").read(LINKS.token(found)) is None


@pytest.mark.parametrize("cut", [1, 4, 16, 30])
def test_a_cut_link_is_none(cut: int) -> None:
    token = LINKS.token(Link(LinkAction.RELEASE, 7, "0123456789ABCDEF", time.time()))
    assert LINKS.read(token[:-cut]) is None


def test_an_end_is_the_next_full_hour() -> None:
    found = LINKS.read(LINKS.token(Link(LinkAction.BLOCK, 7, "0123456789ABCDEF", 7201.0)))
    assert found is not None
    assert found.expires == 10800.0
