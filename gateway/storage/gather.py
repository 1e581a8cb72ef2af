"""Items that many coroutines want written, gathered into one job of the writer: one hand-over there, one back.

A thread's turn at the interpreter costs more than the row it writes, so what arrives while a commit is under way goes
into the next one whole. Items that cannot be written together are tried each by itself, so a bad one costs its
neighbours nothing.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

from gateway.core.errors import StorageBroken, StorageFull, StoreError
from gateway.storage.sqlite import MAX_WAITING, Job, Writer

MAX_ITEMS = 256  # of one statement

Item = TypeVar("Item")


class Gatherer(Generic[Item]):
    """Of one event loop. write(connection, items): called in the writer's thread, inside its transaction."""

    def __init__(self, writer: Writer, write: Callable[[sqlite3.Connection, list[Item]], None]) -> None:
        self._writer = writer
        self._write = write
        self._waiting: deque[tuple[Item, asyncio.Future[None]]] = deque()  # filled by the loop, emptied by the thread
        self._is_announced = False  # the writer has a job that will take what waits

    async def add(self, item: Item) -> None:
        """Returns once the item's commit is on disk. Cancelling the wait does not undo it."""
        if len(self._waiting) >= MAX_WAITING:
            raise StoreError(f"{self._writer.path.name}: writer is overrun")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((item, future))
        if not self._is_announced:
            self._announce(loop)
        await future

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        taken: list[tuple[Item, asyncio.Future[None]]] = []

        def job(connection: sqlite3.Connection) -> None:
            self._is_announced = False  # before the look: who comes later announces anew
            self._take(taken, MAX_ITEMS)
            if taken:
                self._write(connection, [item for item, _ in taken])

        self._is_announced = True
        self._submit(loop, job, taken)

    def _submit(
        self, loop: asyncio.AbstractEventLoop, job: Job[None], taken: list[tuple[Item, asyncio.Future[None]]]
    ) -> None:
        def written(done: "Future[None]") -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._tell, loop, taken, done.exception())

        try:
            self._writer.submit(job).add_done_callback(written)
        except Exception as error:
            self._tell(loop, taken, error)

    def _alone(self, item: Item) -> Job[None]:
        return lambda connection: self._write(connection, [item])

    def _take(self, taken: list[tuple[Item, asyncio.Future[None]]], limit: int) -> None:
        with suppress(IndexError):
            while len(taken) < limit:
                taken.append(self._waiting.popleft())

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        taken: list[tuple[Item, asyncio.Future[None]]],
        error: BaseException | None,
    ) -> None:
        if error is not None and not taken:
            self._is_announced = False  # the job was never begun: what it would have taken shares its fate
            self._take(taken, MAX_WAITING)
            _resolve(taken, error)
            return
        if self._waiting and not self._is_announced:
            self._announce(loop)
        if error is not None and len(taken) > 1 and not isinstance(error, StorageFull | StorageBroken):
            for one in taken:
                self._submit(loop, self._alone(one[0]), [one])
            return
        _resolve(taken, error)


def _resolve(taken: list[tuple[Item, asyncio.Future[None]]], error: BaseException | None) -> None:
    for _, future in taken:
        if future.done():
            continue  # whoever waited was cancelled
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
