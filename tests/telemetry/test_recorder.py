"""The recorder: batches off the loop, bounded, and mail goes on when the trace cannot."""

import asyncio
import threading

from gateway.telemetry import recorder as room
from gateway.telemetry.recorder import Event, Recorder


class Sink:
    def __init__(self, *, fails: bool = False) -> None:
        self.batches: list[list[Event]] = []
        self.threads: set[str] = set()
        self.fails = fails

    def append(self, events: list[Event]) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fails:
            raise OSError("disk full")
        self.batches.append(events)


def test_events_are_written_in_one_batch_off_the_loop() -> None:
    sink, dropped = Sink(), list[int]()

    async def story() -> None:
        recorder = Recorder(sink, dropped.append)
        for number in range(10):
            recorder.record("session", (f"k{number}",), {"n": number})
        assert sink.batches == []
        await recorder.flush()
        await recorder.flush()

    asyncio.run(story())
    (batch,) = sink.batches
    assert [(event.kind, event.keys, dict(event.data)) for event in batch] == [
        ("session", (f"k{n}",), {"n": n}) for n in range(10)
    ]
    assert [event.at for event in batch] == sorted(event.at for event in batch)
    assert threading.current_thread().name not in sink.threads
    assert dropped == []


def test_events_are_written_by_themselves_soon() -> None:
    written = asyncio.Event()

    class Loud(Sink):
        def append(self, events: list[Event]) -> None:
            super().append(events)
            loop.call_soon_threadsafe(written.set)

    sink = Loud()

    async def story() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        Recorder(sink, lambda _: None).record("x", ("k",), {})
        await asyncio.wait_for(written.wait(), 10 * room.FLUSH_S)

    loop: asyncio.AbstractEventLoop
    asyncio.run(story())
    assert len(sink.batches) == 1


def test_what_the_disk_does_not_take_is_counted() -> None:
    dropped: list[int] = []

    async def story() -> None:
        recorder = Recorder(Sink(fails=True), dropped.append)
        recorder.record("x", ("k",), {})
        recorder.record("x", ("k",), {})
        await recorder.flush()
        assert dropped == [2]
        for _ in range(room.MAX_WAITING + 3):
            recorder.record("x", ("k",), {})
        assert dropped == [2, 1, 1, 1]
        await recorder.flush()

    asyncio.run(story())
    assert dropped == [2, 1, 1, 1, room.MAX_WAITING]
