"""DNS lists of addresses, blocking or welcoming (RFC 5782), each behind a guard of its health.

A list that has died, was sold or refuses us may answer yes to everything. So a list is asked for its two test points
first, and again and again: 127.0.0.2 must be listed and 127.0.0.1 must not. An answer of 127.255.255.0/24 is the list's
way to say that it refuses us; one outside 127.0.0.0/8 is none of a list. Then the list is off, and its facts UNKNOWN,
until its test points are right again: nothing is refused on its word.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address

from gateway.core.ports import Answer, DnsFailure, Records, Resolver
from gateway.policy.context import Context, Need
from gateway.policy.listanswers import AnswerFilter
from gateway.policy.values import UNKNOWN, Found
from gateway.telemetry import log

LISTED, NOT_LISTED = "127.0.0.2", "127.0.0.1"
HEALTHY_FOR_S = 600.0
SICK_FOR_S = 120.0
LOOK_S = 4.0  # well within the check's deadline, so that a silent list goes off
MAX_ANSWERS = 32
_ANSWERS = IPv4Network("127.0.0.0/8")
_REFUSALS = IPv4Network("127.255.255.0/24")

_log = log.get("checks")


class ListRefuses(Exception):
    """The list's answer is no answer."""


@dataclass(slots=True)
class _Health:
    until: float = 0.0  # monotonic: when to look again
    trouble: str = "not looked at yet"  # "": it works


class DnsLists:
    """dnsbl(…) and dnswl(…): the answers of a zone for the client's address. on_health(zone, is_up) at each look."""

    def __init__(self, resolver: Resolver, on_health: Callable[[str, bool], None]) -> None:
        self._resolver = resolver
        self._on_health = on_health
        self._health: dict[str, _Health] = {}

    async def fetch(self, need: Need, context: Context) -> Found:
        zone = need.arguments[0].lower().rstrip(".")
        wanted = AnswerFilter(need.arguments[1]) if len(need.arguments) > 1 else None
        if not await self._is_up(zone):
            return UNKNOWN
        try:
            found = await self._ask(context.session.client_ip, zone)
        except ListRefuses as error:
            self._note(zone, str(error))
            return UNKNOWN
        if found is None:
            return UNKNOWN
        return tuple(answer for answer in found if wanted is None or answer in wanted)

    async def _is_up(self, zone: str) -> bool:
        health = self._health.get(zone)
        if health is None or health.until <= time.monotonic():
            await self._look(zone)
            health = self._health[zone]
        return not health.trouble

    async def _look(self, zone: str) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                listed, not_listed = await asyncio.gather(self._ask(LISTED, zone), self._ask(NOT_LISTED, zone))
        except TimeoutError:
            self._note(zone, "its test points are not answered in time")
            return
        except ListRefuses as error:
            self._note(zone, str(error))
            return
        if listed is None or not_listed is None:
            self._note(zone, "its test points cannot be looked up")
        elif not listed:
            self._note(zone, f"it does not list its test point {LISTED}")
        elif not_listed:
            self._note(zone, f"it lists {NOT_LISTED}, so it would list everybody")
        else:
            self._note(zone, "")

    def _note(self, zone: str, trouble: str) -> None:
        before = self._health.get(zone, _Health(trouble=""))
        if trouble and trouble != before.trouble:
            _log.warning("DNS list is off", zone=zone, reason=trouble)
        elif before.trouble and not trouble:
            _log.info("DNS list is on again", zone=zone)
        self._health[zone] = _Health(time.monotonic() + (SICK_FOR_S if trouble else HEALTHY_FOR_S), trouble)
        self._on_health(zone, not trouble)

    async def _ask(self, ip: str, zone: str) -> tuple[str, ...] | None:
        """The answers, empty where not listed, None when DNS fails. Raises ListRefuses."""
        answer: Answer = await self._resolver.lookup(f"{_reversed(ip)}.{zone}", "A")
        if isinstance(answer, DnsFailure):
            return None
        if not isinstance(answer, Records):
            return ()
        texts = [str(value) for value in answer.values][:MAX_ANSWERS]
        for text in texts:
            address = ip_address(text)
            if not isinstance(address, IPv4Address) or address not in _ANSWERS:
                raise ListRefuses(f"it answers {text}, which is none of a list")
            if address in _REFUSALS:
                raise ListRefuses(f"it answers {text}: it refuses us")
        return tuple(sorted(texts))


def _reversed(ip: str) -> str:
    """RFC 5782 2.1, 2.4."""
    return ip_address(ip).reverse_pointer.rpartition("." + ("ip6" if ":" in ip else "in-addr"))[0]
