"""Ids: sixteen letters that sort by time."""

import time

from gateway.core.ident import LENGTH, new_id

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
    assert all(len(name) == LENGTH and set(name) <= set(ALPHABET) for name in names)
    assert all(before <= milliseconds(name) <= after for name in names)
    times = [milliseconds(name) for name in names]
    assert times == sorted(times)
