"""What tests of checks share: needs from their text, a resolver of the tests' name server, a log that is kept."""

import asyncio
from types import SimpleNamespace
from typing import Protocol

from gateway.core.ports import Resolver
from gateway.demo.nameserver import NameServer
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.policy.catalogue import FACTS
from gateway.policy.context import Context, Need, arguments_of
from gateway.policy.expression import key_of_call
from gateway.policy.values import Found
from tests.support.fakes import FakeClock

# What a fault of the tests' name server makes of a look-up: its true answer, or none.
BORNE = ("delay:0.1", "truncate")
NOT_BORNE = ("drop", "delay:5", "servfail", "refused", "tcp_close", "garbage")


class Check(Protocol):
    async def fetch(self, need: Need, context: Context) -> Found: ...


def need_of(text: str) -> Need:
    """`client.name` or `dnsbl("bl.test")` as the engine would ask for it."""
    if "(" not in text:
        fact = FACTS[text]
        return Need(text, text, (), fact.stage, fact.cost, fact.provider)
    function, key = key_of_call(text)
    arguments = arguments_of(key)
    return Need(key, function.name, arguments, function.home(arguments), function.cost, function.provider)


def fetch(check: Check, text: str, context: Context) -> Found:
    return asyncio.run(check.fetch(need_of(text), context))


def resolver_of(server: NameServer, fault: str = "") -> Resolver:
    """Impatient where the fault cannot be borne. Made inside the loop that uses it."""
    lifetime_s = 0.2 if fault in NOT_BORNE else 4.0
    return DnsResolver(ResolverSettings((server.address,), lifetime_s, lifetime_s / 2), lambda *_: None)


class Logged:
    """Stands for a room's log: the lines as (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    @property
    def warnings(self) -> list[dict[str, object]]:
        return [fields for level, _, fields in self.lines if level == "warning"]


def moved_by_hand(clock: FakeClock) -> SimpleNamespace:
    """Stands for the module `time` in a room, so that the event loop's own clock goes on."""
    return SimpleNamespace(time=clock.now, monotonic=clock.now, perf_counter=clock.now)
