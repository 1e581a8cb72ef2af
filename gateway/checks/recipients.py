"""recipient.exists for relay domains: the next hop is asked, and its answer kept for all processes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context as CallContext
from dataclasses import dataclass
from typing import Protocol

from gateway.core.address import Mailbox
from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found
from gateway.telemetry import log

MAX_AT_ONCE = 5  # questions to the hops of one domain; the others of a burst are not learnt
MAX_WAITING = 50
MAX_DOMAINS = 1000  # whose slots are kept

_log = log.get("checks")


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
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._flights: dict[str, asyncio.Task[Found]] = {}

    async def fetch(self, need: Need, context: Context) -> Found:
        mailbox = context.recipient
        if mailbox is None:
            return True
        key = str(mailbox)
        known = await self._known(key)
        if known is not None and time.time() - known[1] < (self._keep.exists_s if known[0] else self._keep.missing_s):
            return known[0]
        flight = self._flights.get(key)
        if flight is None:
            if sum(waiting.endswith(f"@{mailbox.domain.ascii}") for waiting in self._flights) >= MAX_WAITING:
                return UNKNOWN
            flight = self._flights[key] = asyncio.create_task(self._ask(mailbox), context=CallContext())
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)  # whoever gives up leaves the answer to the others

    async def _ask(self, mailbox: Mailbox) -> Found:
        domain = mailbox.domain.ascii
        slots = self._slots.setdefault(domain, asyncio.Semaphore(MAX_AT_ONCE))
        try:
            async with slots:
                found = await self._probe(mailbox)
            if found is None:
                return UNKNOWN
            await self._keep_answer(str(mailbox), found)
            return found
        except Exception as error:
            _log.warning("probe failed", domain=domain, reason=repr(error))
            return UNKNOWN
        finally:
            if not slots.locked() and len(self._slots) > MAX_DOMAINS:
                self._slots.pop(domain, None)

    async def _known(self, key: str) -> tuple[bool, float] | None:
        """What cannot be remembered is asked for again."""
        try:
            return await self._store.probed(key)
        except Exception as error:
            _log.warning("probe not remembered", reason=repr(error))
            return None

    async def _keep_answer(self, key: str, found: bool) -> None:
        try:
            await self._store.put_probed(key, found)
        except Exception as error:
            _log.warning("probe not remembered", reason=repr(error))
