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
        session = context.session
        sender = "" if context.reverse_path is None else str(context.reverse_path)
        key = (session.client_ip, session.helo, sender)
        at, kept = self._kept.get(key, (0.0, None))
        if kept is not None and time.monotonic() - at < KEPT_S:
            return kept
        found = await check_spf(*key, self._resolver)
        self._kept[key] = (time.monotonic(), found)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found
