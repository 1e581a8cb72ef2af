"""Identities that sort by time: decision ids, queue ids, session ids."""

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I L O U, so it can be read out over the telephone
LENGTH = 16


_STOCK = 500  # random numbers fetched at once: asking the kernel for one costs as much
_stock: list[int] = []
os.register_at_fork(after_in_child=_stock.clear)  # two processes never use the same ones


def new_id() -> str:
    """16 characters: 45 bits of milliseconds since the epoch, then 35 random bits."""
    try:
        random = _stock.pop()  # in one step: other threads make ids too
    except IndexError:
        octets = os.urandom(5 * _STOCK)
        random, *more = (int.from_bytes(octets[at : at + 5]) >> 5 for at in range(0, len(octets), 5))
        _stock.extend(more)
    number = (time.time_ns() // 1_000_000 & (1 << 45) - 1) << 35 | random
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5)])
