"""greylist.state: has somebody of this domain, or of this network with this sender domain, been here and waited?

Where SPF says that the client may send for the domain, the domain alone is a key too, so that a big sender's pool of
hosts is delayed once. Local parts and recipients are never part of one.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from gateway.checks.senderauth import Spf
from gateway.core.ports import client_network
from gateway.policy.context import Context, Need
from gateway.policy.values import Found

RETRY_S = 2 * 86400.0  # who comes back later than this begins anew


@dataclass(frozen=True, slots=True)
class Seen:
    """Times in seconds since the epoch; passed: it came back after the delay."""

    first: float
    last: float
    passed: bool


@dataclass(frozen=True, slots=True)
class GreylistSettings:
    delay_s: float = 300.0
    keep_s: float = 36 * 86400.0


class GreylistStore(Protocol):
    async def find(self, key: str) -> Seen | None: ...

    async def put(self, key: str, seen: Seen) -> None: ...


class Greylist:
    def __init__(self, store: GreylistStore, spf: Spf, settings: GreylistSettings) -> None:
        self._store = store
        self._spf = spf
        self._settings = settings

    async def fetch(self, need: Need, context: Context) -> Found:
        await self._spf.result(context)
        now = time.time()
        states = [self._state(await self._store.find(key), now) for key in self._keys(context)]
        return max(states, key=_ORDER.index)

    def _state(self, seen: Seen | None, now: float) -> str:
        if seen is None or seen.last < now - self._settings.keep_s:
            return "new"
        if seen.passed:
            return "passed"
        if now - seen.first < self._settings.delay_s:
            return "waiting"
        return "passed" if now - seen.first < RETRY_S else "new"

    async def happened(self, context: Context) -> None:
        """A stranger has tried a recipient: noted after the decision, whatever it was. Nothing is looked up for it."""
        now = time.time()
        for key in self._keys(context):
            seen = await self._store.find(key)
            state = self._state(seen, now)
            if seen is None or state == "new":
                await self._store.put(key, Seen(now, now, passed=False))
            else:
                await self._store.put(key, Seen(seen.first, now, passed=state == "passed"))

    def _keys(self, context: Context) -> list[str]:
        mailbox = context.reverse_path.mailbox if context.reverse_path is not None else None
        keys = [f"{client_network(context.session.client_ip)}|{mailbox.domain.ascii if mailbox else ''}"]
        found = self._spf.known(context) if mailbox is not None else None
        if found is not None and found.result == "pass":
            keys.append(f"spf|{found.domain}")
        return keys


_ORDER = ("new", "waiting", "passed")
