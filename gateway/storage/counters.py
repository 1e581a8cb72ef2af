"""Counters that hold over all processes of this machine: gauges (connections now) and windows (events lately).

One anonymous shared mapping, made before fork: a set-associative table of buckets of eight entries. A gauge keeps a
column for each process slot, so that a killed process's share can be dropped; a window counts to its expiry and is
then forgotten. The lock is a POSIX record lock, which the kernel frees when its holder dies. Bounded: a full bucket
gives up its window that expires first; an entry with a gauge in use is never given up.

A gauge is given back without the lock: its column is written by its own process alone (or for it, once it is dead), and
the key of an entry is not touched while a gauge in it is in use.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b

MAX_SLOTS = 16  # processes that may hold gauges
_ENTRY = struct.Struct(f"<Qdd{MAX_SLOTS}H")  # key, window's expiry (monotonic), window's count, gauge by slot
_HEAD = struct.Struct("<Qdd")
_WINDOW = struct.Struct("<dd")  # at _WINDOW_AT of an entry
_WINDOW_AT = 8
_WAYS = 8
_FULL = 0xFFFF  # what a column holds
_SECRET = os.urandom(16)  # of this gateway's run: or strangers would choose keys that share a bucket with another's


class SharedCounters:
    def __init__(self, buckets: int = 4096) -> None:
        self._buckets = buckets
        self._map = mmap.mmap(-1, buckets * _WAYS * _ENTRY.size)
        self._columns = memoryview(self._map).cast("H")  # a gauge is written in one step: readers see old or new
        self._lock_file = os.memfd_create("smarthost-counters", os.MFD_CLOEXEC)
        self.slot = 0

    def attach(self, slot: int) -> None:
        """Called in a child after fork: which column of the gauges is its own."""
        if not 0 <= slot < MAX_SLOTS:
            raise ValueError(f"slot {slot}, allowed are 0 to {MAX_SLOTS - 1}")
        self.slot = slot

    def acquire(self, *limits: tuple[str, int]) -> str | None:
        """Add one to each gauge, by key. Or to none: then the key whose sum over all processes is at its limit."""
        with self._locked():
            for number, (key, limit) in enumerate(limits):
                offset = self._take(key)
                if offset < 0 or sum(self._gauges(offset)) >= min(limit, _FULL):
                    self.release(*(taken for taken, _ in limits[:number]))
                    return key
                self._columns[self._column(offset)] += 1
        return None

    def release(self, *keys: str) -> None:
        for key in keys:
            offset = self._find(key)
            if offset >= 0 and self._columns[self._column(offset)]:
                self._columns[self._column(offset)] -= 1

    def level(self, key: str) -> int:
        with self._locked():
            offset = self._find(key)
            return 0 if offset < 0 else sum(self._gauges(offset))

    def hit(self, key: str, window_s: float, amount: float = 1.0) -> float:
        """Count an event; returns the count of the running window, which began with its first event."""
        with self._locked():
            offset = self._take(key)
            if offset < 0:
                return amount
            expiry, count = self._window(offset)
            now = time.monotonic()
            if expiry <= now:
                expiry, count = now + window_s, 0.0
            self._set_window(offset, expiry, count + amount)
            return count + amount

    def count(self, key: str) -> float:
        with self._locked():
            offset = self._find(key)
            expiry, count = (0.0, 0.0) if offset < 0 else self._window(offset)
            return 0.0 if expiry <= time.monotonic() else count

    def forget(self, key: str) -> None:
        """End the window of `key`."""
        with self._locked():
            offset = self._find(key)
            if offset >= 0:
                self._set_window(offset, 0.0, 0.0)

    def drop_slot(self, slot: int) -> None:
        """Forget what a dead process held."""
        with self._locked():
            for offset in range(0, len(self._map), _ENTRY.size):
                self._columns[self._column(offset, slot)] = 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    # --- entries --------------------------------------------------------------------------------------------------

    def _bucket(self, number: int) -> range:
        start = number % self._buckets * _WAYS * _ENTRY.size
        return range(start, start + _WAYS * _ENTRY.size, _ENTRY.size)

    def _find(self, key: str) -> int:
        """The offset of the key's entry; -1: it has none."""
        number = _number_of(key)
        return next((at for at in self._bucket(number) if _HEAD.unpack_from(self._map, at)[0] == number), -1)

    def _take(self, key: str) -> int:
        """The same under the lock, with an entry made; -1: all eight of its bucket hold gauges in use."""
        found = self._find(key)
        if found >= 0:
            return found
        now = time.monotonic()
        best, best_expiry = -1, float("inf")
        for offset in self._bucket(_number_of(key)):
            expiry = self._window(offset)[0]
            expiry = 0.0 if expiry <= now else expiry
            if expiry < best_expiry and not any(self._gauges(offset)):
                best, best_expiry = offset, expiry
        if best >= 0:
            _HEAD.pack_into(self._map, best, _number_of(key), 0.0, 0.0)
        return best

    def _window(self, offset: int) -> tuple[float, float]:
        expiry, count = _WINDOW.unpack_from(self._map, offset + _WINDOW_AT)
        return expiry, count

    def _set_window(self, offset: int, expiry: float, count: float) -> None:
        _WINDOW.pack_into(self._map, offset + _WINDOW_AT, expiry, count)

    def _gauges(self, offset: int) -> memoryview:
        first = self._column(offset, 0)
        return self._columns[first : first + MAX_SLOTS]

    def _column(self, offset: int, slot: int | None = None) -> int:
        return (offset + _HEAD.size) // 2 + (self.slot if slot is None else slot)


@lru_cache(maxsize=4096)
def _number_of(key: str) -> int:
    """Never 0, which marks an entry that was never used."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8, key=_SECRET).digest(), "little") or 1
