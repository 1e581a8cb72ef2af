"""What was kept goes on its way: looked at once more, by the one door, and marked.

A request is a row in the database, so it outlives whoever made it (the command line, a page) and this process. What was
kept may never have been scanned, or not by the signatures of today, so it is scanned now. While no engine answers the
request waits; a virus has it refused, unless the operator has said otherwise.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.core.errors import StorageBroken
from gateway.core.ports import Clock
from gateway.message.blob import INLINE_LIMIT
from gateway.message.header import parse_header
from gateway.policy.context import MessageFacts
from gateway.quarantine.store import BY_RECIPIENT, QuarantineStore, Request
from gateway.queue.intake import Intake
from gateway.queue.store import QueuedMessage

POLL_S = 0.5
LIMIT = 500  # requests at once
AT_ONCE = 4  # scans
AGAIN_S = 30.0  # after a scan that no engine answered


@dataclass(frozen=True, slots=True)
class Scanned:
    """virus: its name, or ""; is_partial: not all could be looked at."""

    virus: str = ""
    is_partial: bool = False


Scan = Callable[[MessageFacts], Awaitable[Scanned]]  # raises where nobody can tell


class Observer(Protocol):
    def settled(self, request: Request, result: str, queue_id: str, reason: str) -> None:
        """result: released, refused or waiting; queue_id: that it goes on with."""

    def failed(self, what: str, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """fails_open: what no engine answers for is released all the same (`[checks.antivirus] on_error = "skip"`); scan_s:
    for one scan.
    """

    fails_open: bool = False
    scan_s: float = 60.0


class Releaser:
    """on_ready wakes the runner."""

    def __init__(
        self,
        store: QuarantineStore,
        intake: Intake,
        scan: Scan,
        settings: ReleaseSettings,
        observer: Observer,
        clock: Clock,
        on_ready: Callable[[], None],
    ) -> None:
        self._store = store
        self._intake = intake
        self._scan = scan
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._on_ready = on_ready
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[tuple[str, tuple[int, ...]], asyncio.Task[None]] = {}
        self._broken: StorageBroken | None = None

    async def run(self) -> None:
        """Until cancelled. Raises StorageBroken."""
        try:
            while self._broken is None:
                try:
                    await self.take()
                except StorageBroken:
                    raise
                except Exception as error:
                    self._observer.failed("release", error)
                await asyncio.sleep(POLL_S)
            raise self._broken
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def take(self) -> None:
        """Begin with requests that are due: one whose scan hangs keeps no other waiting."""
        if len(self._tasks) >= LIMIT:
            return
        for request in await asyncio.to_thread(self._store.requests, LIMIT):
            key = request.queue_id, tuple(request.recipients)
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._settle(request))
                self._tasks[key].add_done_callback(lambda task, key=key: self._ended(key, task))  # type: ignore[misc]

    async def settle_all(self) -> None:
        """Wait for what has begun."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _ended(self, key: tuple[str, tuple[int, ...]], task: "asyncio.Task[None]") -> None:
        del self._tasks[key]
        if not task.cancelled() and isinstance(error := task.exception(), StorageBroken):
            self._broken = error

    async def _settle(self, request: Request) -> None:
        try:
            async with self._slots:
                await self._decide(request)
        except StorageBroken:
            raise
        except Exception as error:
            self._observer.failed("release", error)
            await self._postpone(request, "it failed here; the log says how")

    async def _decide(self, request: Request) -> None:
        if request.message is None:
            return await self._refuse(request, f"it cannot be read: {request.trouble}")
        try:
            async with asyncio.timeout(self._settings.scan_s):
                found = await self._scan(await _facts_of(request.message))
        except StorageBroken:
            raise
        except Exception as error:
            if not (self._settings.fails_open or request.is_despite):
                return await self._postpone(request, f"cannot be scanned: {error or type(error).__name__}")
            found = Scanned()
        if found.virus and not request.is_despite:
            return await self._refuse(request, f"{found.virus} was found in it")
        if found.is_partial and request.by == BY_RECIPIENT:
            return await self._refuse(request, "not all of it could be looked at")
        rows = tuple(request.recipients)
        queue_id = await self._intake.readmit(request.message, rows, request.info, request.by)
        if queue_id:
            self._observer.settled(request, "released", queue_id, found.virus and f"despite {found.virus}")
            self._on_ready()

    async def _refuse(self, request: Request, reason: str) -> None:
        await asyncio.to_thread(self._store.refuse, request, f"not released: {reason}")
        self._observer.settled(request, "refused", "", reason)

    async def _postpone(self, request: Request, reason: str) -> None:
        due = self._clock.now() + AGAIN_S
        await asyncio.to_thread(self._store.postpone, request, f"not released yet: {reason}", due)
        self._observer.settled(request, "waiting", "", reason)


async def _facts_of(message: QueuedMessage) -> MessageFacts:
    """Of the message as it came in."""
    head = await asyncio.to_thread(message.blob.head, INLINE_LIMIT)
    return MessageFacts(message.blob, not head.isascii(), parse_header(head))
