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
from gateway.quarantine.store import QuarantineStore, Request
from gateway.queue.intake import Intake

POLL_S = 0.5
LIMIT = 200  # requests taken at once
AT_ONCE = 4  # scans
AGAIN_S = 30.0  # after a scan that no engine answered
SCAN_S = 60.0

Scan = Callable[[MessageFacts], Awaitable[str]]  # the name of a virus, "" for none; raises where nobody can tell


class Observer(Protocol):
    def settled(self, request: Request, result: str, queue_id: str, reason: str) -> None:
        """result: released, refused or waiting; queue_id: that it goes on with."""

    def failed(self, what: str, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """fails_open: what no engine answers for is released all the same (`[checks.antivirus] on_error = "skip"`)."""

    fails_open: bool = False


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

    async def run(self) -> None:
        """Until cancelled, or the storage is broken."""
        while True:
            try:
                await self.run_once()
            except StorageBroken:
                raise
            except Exception as error:
                self._observer.failed("release", error)
            await asyncio.sleep(POLL_S)

    async def run_once(self) -> int:
        """How many requests were looked at."""
        requests = await asyncio.to_thread(self._store.requests, LIMIT)
        found = await asyncio.gather(*map(self._settle, requests), return_exceptions=True)
        for error in found:
            if isinstance(error, StorageBroken | asyncio.CancelledError):
                raise error
            if isinstance(error, BaseException):
                self._observer.failed("release", error)
        return len(requests)

    async def _settle(self, request: Request) -> None:
        rows = tuple(request.recipients)
        if request.message is None:
            return await self._refuse(request, f"it cannot be read: {request.trouble}")
        async with self._slots:
            try:
                async with asyncio.timeout(SCAN_S):
                    virus = await self._scan(await _facts_of(request))
            except Exception as error:
                if not (self._settings.fails_open or request.is_despite):
                    return await self._postpone(request, str(error) or type(error).__name__)
                virus = ""
        if virus and not request.is_despite:
            return await self._refuse(request, f"{virus} was found in it")
        queue_id = await self._intake.readmit(request.message, rows, request.info, request.by)
        if queue_id:
            self._observer.settled(request, "released", queue_id, virus and f"despite {virus}")
            self._on_ready()

    async def _refuse(self, request: Request, reason: str) -> None:
        await asyncio.to_thread(self._store.refuse, tuple(request.recipients), f"not released: {reason}")
        self._observer.settled(request, "refused", "", reason)

    async def _postpone(self, request: Request, reason: str) -> None:
        due = self._clock.now() + AGAIN_S
        rows = tuple(request.recipients)
        await asyncio.to_thread(self._store.postpone, rows, f"not released yet: cannot be scanned: {reason}", due)
        self._observer.settled(request, "waiting", "", reason)


async def _facts_of(request: Request) -> MessageFacts:
    """Of the message as it came in."""
    if request.message is None:
        raise ValueError("no message")
    blob = request.message.blob
    head = await asyncio.to_thread(blob.head, INLINE_LIMIT)
    return MessageFacts(blob, not head.isascii(), parse_header(head))
