"""The decision recorder: everything that happened to a connection or message, as events that `smarthost trace` reads.

Events are gathered and written in batches off the event loop; a crash loses at most the last quarter of a second of
trace, never mail. Bounded: what the disk cannot keep up with is dropped and counted.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

FLUSH_S = 0.25
MAX_WAITING = 50_000


@dataclass(frozen=True, slots=True)
class Event:
    """keys: what it can be found by (ids, addresses in lower case, message-ids); data: JSON values only."""

    at: float
    kind: str  # "session" "transaction" "delivery" "queue"
    keys: tuple[str, ...]
    data: Mapping[str, object]


class TraceSink(Protocol):
    def append(self, events: list[Event]) -> None:
        """Blocking."""


class Recorder:
    """Gathers a process's events. on_dropped is called with a count."""

    def __init__(self, sink: TraceSink, on_dropped: "OnDropped") -> None:
        self._sink = sink
        self._on_dropped = on_dropped
        self._events: list[Event] = []
        self._writing = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None

    def record(self, kind: str, keys: tuple[str, ...], data: Mapping[str, object]) -> None:
        if len(self._events) >= MAX_WAITING:
            self._on_dropped(1)
            return
        self._events.append(Event(time.time(), kind, keys, data))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_S)
        self._flushing = None
        await self.flush()

    async def flush(self) -> None:
        async with self._writing:
            events, self._events = self._events, []
            if not events:
                return
            try:
                await asyncio.to_thread(self._sink.append, events)
            except Exception:
                self._on_dropped(len(events))  # the trace may fail; mail goes on


class OnDropped(Protocol):
    def __call__(self, count: int, /) -> None: ...
