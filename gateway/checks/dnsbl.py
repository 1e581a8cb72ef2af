"""DNS lists of addresses, blocking or welcoming (RFC 5782 2.1), and of domains in links (RFC 5782 2.2)."""

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from gateway.checks.links import Links
from gateway.checks.runner import Check
from gateway.checks.zones import TestPoints, Zones
from gateway.core.ports import Resolver
from gateway.core.verdict import Stage
from gateway.policy.context import Context, Need
from gateway.policy.listanswers import AnswerFilter
from gateway.policy.values import UNKNOWN, Found

ADDRESS_POINTS = TestPoints(listed=("2.0.0.127",), free=("1.0.0.127",))
# RFC 5782 5 has TEST and INVALID; older lists of domains have the addresses' point.
DOMAIN_POINTS = TestPoints(listed=("test", "2.0.0.127"), free=("invalid", "1.0.0.127"))
MAX_DOMAINS = 20  # of one message


class DnsLists:
    """dnsbl(…) and dnswl(…): the answers of a zone for the client's address."""

    def __init__(self, resolver: Resolver, on_health: Callable[[str, bool], None]) -> None:
        self._zones = Zones(resolver, ADDRESS_POINTS, on_health)

    async def fetch(self, need: Need, context: Context) -> Found:
        zone, wanted = _arguments(need.arguments)
        found = await self._zones.ask(reversed_ip(context.session.client_ip), zone)
        return UNKNOWN if found is None else tuple(answer for answer in found if wanted is None or answer in wanted)


class UriLists:
    """uribl(…): the answers of a zone for the domains that a message links to, the first MAX_DOMAINS of them."""

    def __init__(self, resolver: Resolver, links: Links, on_health: Callable[[str, bool], None]) -> None:
        self._zones = Zones(resolver, DOMAIN_POINTS, on_health)
        self._links = links

    async def fetch(self, need: Need, context: Context) -> Found:
        zone, wanted = _arguments(need.arguments)
        domains = await self._links.domains(context)
        found = await asyncio.gather(*(self._zones.ask(domain, zone) for domain in domains[:MAX_DOMAINS]))
        answers = {answer for one in found if one for answer in one if wanted is None or answer in wanted}
        if not answers and None in found:
            return UNKNOWN
        return tuple(sorted(answers))


class DomainLists:
    """rhsbl(…): the answers of a zone for the domain of the sender, HELO or the client ("client": its verified name,
    "ptr": its reverse name).
    """

    def __init__(self, resolver: Resolver, reverse: Check, on_health: Callable[[str, bool], None]) -> None:
        self._zones = Zones(resolver, DOMAIN_POINTS, on_health)
        self._reverse = reverse

    async def fetch(self, need: Need, context: Context) -> Found:
        whose, *rest = need.arguments
        name = await self._name(whose, context)
        if name is UNKNOWN:
            return UNKNOWN
        if not isinstance(name, str) or "." not in name or name.startswith("["):
            return ()
        zone, wanted = _arguments(rest)
        found = await self._zones.ask(name.lower().rstrip("."), zone)
        return UNKNOWN if found is None else tuple(answer for answer in found if wanted is None or answer in wanted)

    async def _name(self, whose: str, context: Context) -> Found:
        if whose == "sender":
            mailbox = context.reverse_path.mailbox if context.reverse_path is not None else None
            return None if mailbox is None else mailbox.domain.ascii
        if whose == "helo":
            return context.session.helo
        fact = "client.name" if whose == "client" else "client.ptr"
        return await self._reverse.fetch(Need(fact, fact, (), Stage.CONNECT, 0, "reverse_dns"), context)


def _arguments(arguments: Sequence[str]) -> tuple[str, AnswerFilter | None]:
    zone = arguments[0].lower().rstrip(".")
    return zone, AnswerFilter(arguments[1]) if len(arguments) > 1 else None


def reversed_ip(ip: str) -> str:
    """RFC 5782 2.1, 2.4."""
    return ip_address(ip).reverse_pointer.rpartition("." + ("ip6" if ":" in ip else "in-addr"))[0]
