"""Sender authentication as facts: spf.*, dkim.*, arc.*, dmarc.*. DNS trouble is a `temperror`, never unknown."""

import asyncio
import time
from collections import OrderedDict
from weakref import WeakKeyDictionary

from gateway.core.ports import Resolver
from gateway.policy.context import Context, MessageFacts, Need
from gateway.policy.values import UNKNOWN, Found
from gateway.senderauth.arc import ArcResult, verify_arc
from gateway.senderauth.dkim import DkimResult, summary, verify_dkim
from gateway.senderauth.dmarc import DmarcResult, evaluate_dmarc
from gateway.senderauth.results import Authentication
from gateway.senderauth.spf import SpfResult, check_spf
from gateway.telemetry import log

_log = log.get("checks")
KEPT_S = 60.0  # a result is asked for as three facts and by the greylist
MAX_KEPT = 2000
SPF_S = 10.0  # that an evaluation of DMARC waits for SPF


class Spf:
    """One evaluation for a client, a HELO and a reverse-path."""

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


class Dkim:
    """Each message's signatures are checked once."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._found: WeakKeyDictionary[MessageFacts, tuple[DkimResult, ...]] = WeakKeyDictionary()

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        found = await self.results(context.message)
        if need.name == "dkim.result":
            return summary(found)
        return tuple(dict.fromkeys(each.domain for each in found if each.result == "pass"))

    def known(self, message: MessageFacts) -> tuple[DkimResult, ...] | None:
        return self._found.get(message)

    async def results(self, message: MessageFacts) -> tuple[DkimResult, ...]:
        found = self._found.get(message)
        if found is None:
            found = self._found[message] = await verify_dkim(message.header, message.blob, self._resolver)
        return found


class Arc:
    """Each message's chain is checked once."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._found: WeakKeyDictionary[MessageFacts, ArcResult] = WeakKeyDictionary()

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        found = await self.result(context.message)
        return found.result if need.name == "arc.result" else found.sealers

    def known(self, message: MessageFacts) -> ArcResult | None:
        return self._found.get(message)

    async def result(self, message: MessageFacts) -> ArcResult:
        found = self._found.get(message)
        if found is None:
            found = self._found[message] = await verify_arc(message.header, message.blob, self._resolver)
        return found


class Dmarc:
    """Each message is evaluated once, over what SPF and DKIM found."""

    def __init__(self, resolver: Resolver, spf: Spf, dkim: Dkim, arc: Arc, deadline_s: float) -> None:
        """deadline_s: of `all`."""
        self._resolver = resolver
        self._spf = spf
        self._dkim = dkim
        self._arc = arc
        self._deadline_s = deadline_s
        self._found: WeakKeyDictionary[MessageFacts, tuple[SpfResult, DmarcResult]] = WeakKeyDictionary()

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        _, found = await self._evaluated(context, context.message)
        if need.name == "dmarc.result":
            return found.result
        return (found.domain if need.name == "dmarc.domain" else found.policy) or None

    async def _evaluated(self, context: Context, message: MessageFacts) -> tuple[SpfResult, DmarcResult]:
        """With the SPF that it stands on."""
        found = self._found.get(message)
        if found is None:
            spf = await self._spf_in_time(context)
            signatures = await self._dkim.results(message)
            found = spf, await evaluate_dmarc(message.header, spf, signatures, self._resolver)
            self._found[message] = found
        return found

    def known(self, message: MessageFacts) -> Authentication | None:
        """What was found out by now, if it came to DMARC."""
        found = self._found.get(message)
        if found is None:
            return None
        dkim, arc = self._dkim.known(message), self._arc.known(message)
        return Authentication(found[0], dkim or (), found[1], arc or ArcResult("none"))

    async def _spf_in_time(self, context: Context) -> SpfResult:
        """A stranger's record may lead on and on: that is no reason to know nothing of the author."""
        try:
            async with asyncio.timeout(SPF_S):
                return await self._spf.result(context)
        except TimeoutError:
            mailbox = context.reverse_path.mailbox if context.reverse_path is not None else None
            return SpfResult("temperror", mailbox.domain.ascii if mailbox is not None else "", "mailfrom")

    async def all(self, context: Context, message: MessageFacts, seconds: float) -> Authentication:
        """For the trace field. What takes longer, or fails otherwise, is told as a temperror."""
        try:
            async with asyncio.timeout(max(0.0, min(seconds, self._deadline_s))):
                spf, dmarc = await self._evaluated(context, message)
                dkim, arc = await self._dkim.results(message), await self._arc.result(message)
                return Authentication(spf, dkim, dmarc, arc)
        except Exception as error:
            if not isinstance(error, TimeoutError):
                _log.error("authentication failed", exc_info=error)
            spf = self._spf.known(context) or SpfResult("temperror", "", "mailfrom")
            return Authentication(spf, (DkimResult("temperror"),), DmarcResult("temperror"), ArcResult("temperror"))
