"""seen.domain_good and its like: what this gateway has seen of a sender's domain and of a client's network.

Counts of messages, decayed: after a half-life one counts as half. A domain's own are those that SPF lets come from
their client, so that nobody earns or loses a name for others. Good: somebody got it; bad: rules refused it at its end,
dropped it or kept it in quarantine.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from gateway.checks.senderauth import Spf
from gateway.core.ports import client_network
from gateway.policy.context import Context, Need
from gateway.policy.values import Found

FACTS = ("seen.domain_good", "seen.domain_bad", "seen.network_good", "seen.network_bad")


@dataclass(frozen=True, slots=True)
class Reputation:
    """Decayed counts as of `at`, in seconds since the epoch."""

    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0

    def at_time(self, now: float, half_life_s: float) -> "Reputation":
        left = 0.5 ** (max(0.0, now - self.at) / half_life_s)
        return Reputation(self.good * left, self.bad * left, now)

    def with_one(self, *, is_good: bool) -> "Reputation":
        return Reputation(self.good + is_good, self.bad + (not is_good), self.at)


class ReputationStore(Protocol):
    async def reputation(self, key: str) -> Reputation: ...

    async def add_reputation(self, key: str, half_life_s: float, *, is_good: bool) -> None:
        """One more, now."""


class Reputations:
    def __init__(self, store: ReputationStore, spf: Spf, half_life_s: float) -> None:
        self._store = store
        self._spf = spf
        self._half_life_s = half_life_s

    async def fetch(self, need: Need, context: Context) -> Found:
        if need.name.startswith("seen.domain"):
            await self._spf.result(context)
            key = self._domain_key(context)
        else:
            key = _network_key(context)
        if not key:
            return 0
        found = (await self._store.reputation(key)).at_time(time.time(), self._half_life_s)
        return round(found.good if need.name.endswith("_good") else found.bad, 2)

    async def happened(self, context: Context, *, is_good: bool) -> None:
        """A stranger's message has come to its end. Nothing is looked up for it."""
        for key in filter(None, (_network_key(context), self._domain_key(context))):
            await self._store.add_reputation(key, self._half_life_s, is_good=is_good)

    def _domain_key(self, context: Context) -> str:
        """None of its own for mail that the domain does not answer for."""
        if context.reverse_path is None or context.reverse_path.is_null:
            return ""
        found = self._spf.known(context)
        return f"domain|{found.domain}" if found is not None and found.result == "pass" else ""


def _network_key(context: Context) -> str:
    return f"network|{client_network(context.session.client_ip)}"
