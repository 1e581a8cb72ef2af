"""spf.result, spf.domain, spf.explanation."""

import time
from collections import OrderedDict

from gateway.core.ports import Resolver
from gateway.policy.context import Context, Need
from gateway.policy.values import Found
from gateway.senderauth.spf import SpfResult, check_spf

KEPT_S = 60.0  # a result is asked for as three facts and by the greylist
MAX_KEPT = 2000


class Spf:
    """One evaluation for a client, a HELO and a reverse-path; DNS trouble is the result `temperror`, never unknown."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._kept: OrderedDict[tuple[str, str, str], tuple[float, SpfResult]] = OrderedDict()

    async def fetch(self, need: Need, context: Context) -> Found:
        found = await self.result(context)
        if need.name == "spf.result":
            return found.result
        return (found.domain if need.name == "spf.domain" else found.explanation) or None

    async def result(self, context: Context) -> SpfResult:
        kept = self.known(context)
        if kept is not None:
            return kept
        key = _key(context)
        found = await check_spf(*key, self._resolver)
        self._kept[key] = (time.monotonic(), found)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found

    def known(self, context: Context) -> SpfResult | None:
        """What was found out lately."""
        at, kept = self._kept.get(_key(context), (0.0, None))
        return kept if time.monotonic() - at < KEPT_S else None


def _key(context: Context) -> tuple[str, str, str]:
    session = context.session
    return session.client_ip, session.helo, "" if context.reverse_path is None else str(context.reverse_path)
