"""DNS lists (RFC 5782), each behind a guard of its health.

A list that has died, was sold or refuses us may answer yes to everything. So a list is asked for its test points
first, and again and again: some must be listed and some must not. An answer of 127.255.255.0/24 is the list's way to
say that it refuses us; one outside 127.0.0.0/8 is none of a list. Then the list is off, and its facts UNKNOWN, until
its test points are right again: nothing is refused on its word.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address

from gateway.core.ports import Answer, DnsFailure, Records, Resolver
from gateway.telemetry import log

HEALTHY_FOR_S = 600.0
SICK_FOR_S = 120.0
LOOK_S = 4.0  # well within the check's deadline, so that a silent list goes off
MAX_ANSWERS = 32
_ANSWERS = IPv4Network("127.0.0.0/8")
_REFUSALS = IPv4Network("127.255.255.0/24")

_log = log.get("checks")


class ListRefuses(Exception):
    """The list's answer is no answer."""


@dataclass(frozen=True, slots=True)
class TestPoints:
    """Names below a zone. listed: at least one of them must be; free: none may be."""

    __test__ = False  # nothing for pytest

    listed: tuple[str, ...]
    free: tuple[str, ...]


@dataclass(slots=True)
class _Health:
    until: float = 0.0  # monotonic: when to look again
    trouble: str = "not looked at yet"  # "": it works


class Zones:
    """Asks lists that work. on_health(zone, is_up): told at each look."""

    def __init__(self, resolver: Resolver, points: TestPoints, on_health: Callable[[str, bool], None]) -> None:
        self._resolver = resolver
        self._points = points
        self._on_health = on_health
        self._health: dict[str, _Health] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, zone: str) -> tuple[str, ...] | None:
        """The answers for a name below the zone, empty where it is not listed, None when that cannot be known."""
        if not await self._is_up(zone):
            return None
        try:
            return await self._answers(name, zone)
        except ListRefuses as error:
            self._note(zone, str(error))
            return None

    async def _is_up(self, zone: str) -> bool:
        health = self._health.get(zone)
        if health is None or health.until <= time.monotonic():
            look = self._looks.get(zone)
            if look is None:
                # For all who wait, and at nobody's expense: in a context without a message's budget.
                look = self._looks[zone] = asyncio.create_task(self._look(zone), context=Context())
                look.add_done_callback(lambda _: self._looks.pop(zone, None))
            await asyncio.shield(look)
            health = self._health[zone]
        return not health.trouble

    async def _look(self, zone: str) -> None:
        points = self._points
        try:
            async with asyncio.timeout(LOOK_S):
                found = await asyncio.gather(*(self._answers(name, zone) for name in (*points.listed, *points.free)))
        except TimeoutError:
            self._note(zone, "its test points are not answered in time")
            return
        except ListRefuses as error:
            self._note(zone, str(error))
            return
        listed, free = found[: len(points.listed)], found[len(points.listed) :]
        wrong = [name for name, answers in zip(points.free, free, strict=True) if answers]
        if wrong:
            self._note(zone, f"it lists {wrong[0]}, so it would list everybody")
        elif any(listed) and None not in free:
            self._note(zone, "")
        elif None in found:
            self._note(zone, "its test points cannot be looked up")
        else:
            self._note(zone, f"it does not list its test point {points.listed[0]}")

    def _note(self, zone: str, trouble: str) -> None:
        before = self._health.get(zone, _Health(trouble=""))
        if trouble and trouble != before.trouble:
            _log.warning("DNS list is off", zone=zone, reason=trouble)
        elif before.trouble and not trouble:
            _log.info("DNS list is on again", zone=zone)
        self._health[zone] = _Health(time.monotonic() + (SICK_FOR_S if trouble else HEALTHY_FOR_S), trouble)
        self._on_health(zone, not trouble)

    async def _answers(self, name: str, zone: str) -> tuple[str, ...] | None:
        """None when DNS fails. Raises ListRefuses."""
        answer: Answer = await self._resolver.lookup(f"{name}.{zone}", "A")
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
