"""Counters that hold over all processes of this machine: gauges (connections now) and windows (events lately).

One anonymous shared mapping, made before fork: a set-associative table of buckets of eight entries. A gauge keeps a
column for each process slot, so that a killed process's share can be dropped; a window counts to its expiry and is
then forgotten. The lock is a POSIX record lock, which the kernel frees when its holder dies. Bounded: a full bucket
gives up its window that expires first; an entry with a gauge in use is never given up. A column is written by its own
process alone (or for it, once it is dead), so giving back takes no lock.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

MAX_SLOTS = 16  # processes that may hold gauges
_ENTRY = struct.Struct(f"<Qdd{MAX_SLOTS}H")  # key, window's expiry (monotonic), window's count, gauge by slot
_WINDOW = struct.Struct("<Qdd")
_WAYS = 8


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
                offset, entry = self._find(key)
                if entry is None or sum(entry[3:]) >= limit:
                    self.release(*(taken for taken, _ in limits[:number]))
                    return key
                self._put(offset, entry)
                self._columns[self._column(offset)] = int(entry[3 + self.slot]) + 1
        return None

    def release(self, *keys: str) -> None:
        for key in keys:
            offset, entry = self._find(key)
            if entry is not None and entry[3 + self.slot]:
                self._columns[self._column(offset)] = int(entry[3 + self.slot]) - 1

    def level(self, key: str) -> int:
        with self._locked():
            entry = self._find(key)[1]
            return 0 if entry is None else int(sum(entry[3:]))

    def hit(self, key: str, window_s: float, amount: float = 1.0) -> float:
        """Count an event; returns the count of the running window, which began with its first event."""
        with self._locked():
            offset, entry = self._find(key)
            if entry is None:
                return amount
            now = time.monotonic()
            if entry[1] <= now:
                entry[1], entry[2] = now + window_s, 0.0
            entry[2] += amount
            self._put(offset, entry)
            return float(entry[2])

    def count(self, key: str) -> float:
        with self._locked():
            entry = self._find(key)[1]
            return 0.0 if entry is None or entry[1] <= time.monotonic() else float(entry[2])

    def forget(self, key: str) -> None:
        """End the window of `key`."""
        with self._locked():
            offset, entry = self._find(key)
            if entry is not None:
                entry[1] = entry[2] = 0.0
                self._put(offset, entry)

    def drop_slot(self, slot: int) -> None:
        """Forget what a dead process held."""
        with self._locked():
            for offset in range(0, len(self._map), _ENTRY.size):
                if self._map[offset : offset + 8] == bytes(8):
                    continue
                self._columns[self._column(offset, slot)] = 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)

    def _put(self, offset: int, entry: list[float]) -> None:
        """All but the gauges, which stand as they are: zero in an entry that is new."""
        _WINDOW.pack_into(self._map, offset, *entry[:3])

    def _column(self, offset: int, slot: int | None = None) -> int:
        return (offset + _WINDOW.size) // 2 + (self.slot if slot is None else slot)

    def _find(self, key: str) -> tuple[int, list[float] | None]:
        """The key's entry, a free one made its own, or None when all eight of its bucket hold gauges in use."""
        number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
        start = number % self._buckets * _WAYS * _ENTRY.size
        now = time.monotonic()
        best, best_expiry = -1, float("inf")
        for offset in range(start, start + _WAYS * _ENTRY.size, _ENTRY.size):
            entry = list(_ENTRY.unpack_from(self._map, offset))
            if entry[0] == number:
                return offset, entry
            expiry = 0.0 if entry[1] <= now else entry[1]
            if expiry < best_expiry and not any(entry[3:]):
                best, best_expiry = offset, expiry
        if best < 0:
            return -1, None
        return best, [number, 0.0, 0.0, *[0] * MAX_SLOTS]
