"""Ids: sixteen letters that sort by time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ident import LENGTH, is_id, new_id

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def milliseconds(name: str) -> int:
    number = 0
    for char in name:
        number = number * 32 + ALPHABET.index(char)
    return number >> 35


def test_ids_differ_and_carry_the_time() -> None:
    before = time.time_ns() // 1_000_000
    names = [new_id() for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert len(set(names)) == 2000
    assert all(len(name) == LENGTH and is_id(name) for name in names)
    assert all(before <= milliseconds(name) <= after for name in names)
    times = [milliseconds(name) for name in names]
    assert times == sorted(times)


@pytest.mark.parametrize(
    "text",
    ["", "0" * 15, "0" * 17, "0" * 15 + "I", "0" * 15 + "U", "0" * 15 + "-", "0" * 15 + "ß", "0" * 15 + "\u017f"],
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


@given(st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH))
def test_case_does_not_matter(text: str) -> None:
    assert is_id(text)
    assert is_id(text.lower())
