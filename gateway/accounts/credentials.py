"""Password hashes: argon2id with 19 MiB and two passes (OWASP's figures), off the event loop, successes remembered.

The cache of successes is bounded, lives five minutes, holds keyed digests only, and is tied to the stored hash, so a
changed password, a disabled or a deleted account never matches an old entry.
"""

import asyncio
import hmac
import os
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
CACHE_SIZE = 10_000
CACHE_S = 300.0
# Verified for unknown users too, so that the time of an answer does not tell who exists.
_NOBODY = HASHER.hash(os.urandom(16).hex())


def hash_password(password: str) -> str:
    return HASHER.hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Blocking, about 25 ms. None stands for an unknown user: as slow, always False."""
    try:
        HASHER.verify(stored or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


class CredentialChecker:
    """Verifies in a small pool (each takes 19 MiB for its time)."""

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._key = os.urandom(32)
        self._successes: OrderedDict[bytes, float] = OrderedDict()

    async def verify(self, user: str, stored: str | None, password: str) -> bool:
        """stored: the account's hash, None when there is no account or it is disabled."""
        digest = hmac.new(self._key, f"{user}\0{stored}\0{password}".encode(), sha256).digest()
        now = time.monotonic()
        if stored is not None and self._successes.get(digest, 0.0) > now:
            return True
        is_right = await asyncio.get_running_loop().run_in_executor(self._pool, verify_password, stored, password)
        if is_right:
            self._successes[digest] = now + CACHE_S
            self._successes.move_to_end(digest)
            while len(self._successes) > CACHE_SIZE:
                self._successes.popitem(last=False)
        return is_right
