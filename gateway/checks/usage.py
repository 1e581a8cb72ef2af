"""auth.usual: how many recipients in an hour are nothing unusual for a user who signed in.

From what was accepted of the user before, hour by hour: so many times the busiest hour, and never less than a floor,
for a new user has no past. What was held back as unusual is not counted, so that an attack does not become the habit.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """floor: recipients an hour; factor: of the busiest hour within keep_s."""

    floor: int = 100
    factor: float = 3.0
    keep_s: float = 28 * 86400.0


class UsageStore(Protocol):
    async def busiest_hour(self, user: str, since: int, before: int) -> int:
        """The most recipients in one hour of [since, before); hours are counted from the epoch."""

    async def add_usage(self, user: str, hour: int, recipients: int) -> None: ...


class Usage:
    def __init__(self, store: UsageStore, settings: UsageSettings) -> None:
        self._store = store
        self._settings = settings

    async def fetch(self, need: Need, context: Context) -> Found:
        user = context.session.user
        if user is None:
            return UNKNOWN
        now = time.time()
        hour = int(now // HOUR_S)
        since = int((now - self._settings.keep_s) // HOUR_S)
        busiest = await self._store.busiest_hour(user, since, hour)
        return max(self._settings.floor, int(self._settings.factor * busiest))

    async def happened(self, context: Context, recipients: int) -> None:
        """The user's message was accepted, and goes out."""
        if context.session.user is not None:
            await self._store.add_usage(context.session.user, int(time.time() // HOUR_S), recipients)
