"""virus.*: what the engines know of a message: the embedded one (YARA-X) and any clamd.

A find of one engine is a find. That there is none takes the word of every engine that is set up: of several clamd one
answers for all, and where none does the fact is unknown, and the check's failure mode decides.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gateway.checks.clamd import ClamdAddress, ClamdError, ClamdVerdict, scan
from gateway.checks.content import ContentClient
from gateway.message.blob import Blob
from gateway.policy.context import Context, MessageFacts, Need
from gateway.policy.values import UNKNOWN, Found

THREADS = 8  # scans of one process that run at the same time
REST_S = 10.0  # that a clamd which failed is asked last
YARA, CLAMD = "yara", "clamd"


@dataclass(frozen=True, slots=True)
class Scanned:
    """name: "" where nothing was found; scanner: yara or clamd."""

    name: str = ""
    scanner: str = ""
    is_partial: bool = False


class Clamds:
    """Several clamd, asked in order, one that failed lately last. on_result: told clean, found, partial or failed."""

    def __init__(self, addresses: tuple[ClamdAddress, ...], timeout_s: float, on_result: Callable[[str], None]) -> None:
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._on_result = on_result
        self._failed: dict[ClamdAddress, float] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="clamd")

    async def verdict(self, blob: Blob) -> ClamdVerdict:
        """Raises ClamdError."""
        until = time.monotonic() + self._timeout_s
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self._ask_all, blob, until)
        self._on_result("partial" if found.is_partial else "found" if found.name else "clean")
        return found

    def _ask_all(self, blob: Blob, until: float) -> ClamdVerdict:
        """In a thread. Each has an equal share of the time that is left, so that one that hangs leaves some."""
        order = sorted(self._addresses, key=lambda each: time.monotonic() - self._failed.get(each, -REST_S) < REST_S)
        reasons = []
        for number, address in enumerate(order):
            now = time.monotonic()
            share = now + (until - now) / (len(order) - number)
            try:
                with blob.open() as file:
                    found = scan(address, file, share)
            except (ClamdError, OSError) as error:
                self._failed[address] = time.monotonic()
                self._on_result("failed")
                reasons.append(f"{address}: {error}")
            else:
                self._failed.pop(address, None)
                return found
        raise ClamdError("; ".join(reasons))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Antivirus:
    """clamds None: the embedded engine alone. Each message is scanned once."""

    def __init__(self, content: ContentClient, clamds: Clamds | None) -> None:
        self._content = content
        self._clamds = clamds
        self._found: WeakKeyDictionary[MessageFacts, asyncio.Task[Scanned]] = WeakKeyDictionary()

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        found = await self.scan(context.message)
        match need.name:
            case "virus.found":
                return bool(found.name)
            case "virus.partial":
                return found.is_partial
            case "virus.name":
                return found.name or None
            case _:
                return found.scanner or None

    async def scan(self, message: MessageFacts) -> Scanned:
        """Raises ContentError or ClamdError where an engine does not answer and none has found anything."""
        task = self._found.get(message)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._found[message] = asyncio.create_task(self._scan(message))
        return await asyncio.shield(task)

    async def _scan(self, message: MessageFacts) -> Scanned:
        if self._clamds is None:
            return await self._embedded(message)
        embedded, clamd = await asyncio.gather(
            self._embedded(message), self._clamds.verdict(message.blob), return_exceptions=True
        )
        if isinstance(clamd, ClamdVerdict) and clamd.name:
            return Scanned(clamd.name, CLAMD, clamd.is_partial)
        if isinstance(embedded, Scanned) and embedded.name:
            return embedded
        for one in (embedded, clamd):
            if isinstance(one, BaseException):
                raise one
        return Scanned(
            is_partial=any(one.is_partial for one in (embedded, clamd) if not isinstance(one, BaseException))
        )

    async def _embedded(self, message: MessageFacts) -> Scanned:
        findings = await self._content.findings(message)
        if findings.matches:
            return Scanned(findings.matches[0], YARA)
        return Scanned(is_partial=findings.is_partial)
