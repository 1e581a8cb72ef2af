"""rate(…): read from counters that all processes share, and written there when something has happened."""

from gateway.core.ports import Counters
from gateway.policy.context import Context, Need
from gateway.policy.rates import KEYS, counter_of, parse_rate
from gateway.policy.rules import Policy
from gateway.policy.values import Found


class Rates:
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    async def fetch(self, need: Need, context: Context) -> Found:
        key = counter_of(parse_rate(*need.arguments), context)
        count = 0.0 if key is None else self._counters.count(key)
        return int(count)

    def happened(self, policy: Policy, of: str, context: Context, *, by: tuple[str, ...] = KEYS) -> None:
        """One more of `of` ("messages", "recipients", …): each rate by such a key counts it."""
        for rate in policy.rates:
            if rate.of == of and rate.key in by and (key := counter_of(rate, context)) is not None:
                self._counters.hit(key, rate.window_s)
