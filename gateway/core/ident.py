"""Identities that sort by time: decision ids, queue ids, session ids."""

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I L O U, so it can be read out over the telephone
LENGTH = 16


def new_id() -> str:
    """16 characters: 45 bits of milliseconds since the epoch, then 35 random bits."""
    number = (time.time_ns() // 1_000_000 & (1 << 45) - 1) << 35 | secrets.randbits(35)
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5)])
