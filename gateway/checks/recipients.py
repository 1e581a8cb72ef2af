"""recipient.exists for relay domains: the next hop is asked, and its answer kept for all processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.core.address import Mailbox
from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found

MAX_AT_ONCE = 20  # questions to next hops


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """Seconds that an answer is believed."""

    exists_s: float = 86400.0
    missing_s: float = 3600.0


class ProbeStore(Protocol):
    async def probed(self, address: str) -> tuple[bool, float] | None:
        """The last answer and when it was given, seconds since the epoch."""

    async def put_probed(self, address: str, exists: bool) -> None: ...


class RelayRecipients:
    """probe(mailbox): does it exist? None when the next hop does not say."""

    def __init__(
        self, probe: Callable[[Mailbox], Awaitable[bool | None]], store: ProbeStore, keep: KeepSettings
    ) -> None:
        self._probe = probe
        self._store = store
        self._keep = keep
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._flights: dict[str, asyncio.Task[Found]] = {}

    async def fetch(self, need: Need, context: Context) -> Found:
        mailbox = context.recipient
        if mailbox is None:
            return True
        key = str(mailbox)
        known = await self._store.probed(key)
        if known is not None and time.time() - known[1] < (self._keep.exists_s if known[0] else self._keep.missing_s):
            return known[0]
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._ask(mailbox))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)  # whoever gives up leaves the answer to the others

    async def _ask(self, mailbox: Mailbox) -> Found:
        async with self._slots:
            found = await self._probe(mailbox)
        if found is None:
            return UNKNOWN
        await self._store.put_probed(str(mailbox), found)
        return found
