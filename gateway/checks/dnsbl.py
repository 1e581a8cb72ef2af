"""DNS lists of addresses, blocking or welcoming (RFC 5782 2.1), and of domains in links (RFC 5782 2.2)."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

from gateway.checks.links import Links
from gateway.checks.zones import TestPoints, Zones
from gateway.core.ports import Resolver
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
        zone, wanted = _arguments(need)
        found = await self._zones.ask(reversed_ip(context.session.client_ip), zone)
        return UNKNOWN if found is None else tuple(answer for answer in found if wanted is None or answer in wanted)


class UriLists:
    """uribl(…): the answers of a zone for the domains that a message links to, the first MAX_DOMAINS of them."""

    def __init__(self, resolver: Resolver, links: Links, on_health: Callable[[str, bool], None]) -> None:
        self._zones = Zones(resolver, DOMAIN_POINTS, on_health)
        self._links = links

    async def fetch(self, need: Need, context: Context) -> Found:
        zone, wanted = _arguments(need)
        domains = await self._links.domains(context)
        found = await asyncio.gather(*(self._zones.ask(domain, zone) for domain in domains[:MAX_DOMAINS]))
        answers = {answer for one in found if one for answer in one if wanted is None or answer in wanted}
        if not answers and None in found:
            return UNKNOWN
        return tuple(sorted(answers))


def _arguments(need: Need) -> tuple[str, AnswerFilter | None]:
    zone = need.arguments[0].lower().rstrip(".")
    return zone, AnswerFilter(need.arguments[1]) if len(need.arguments) > 1 else None


def reversed_ip(ip: str) -> str:
    """RFC 5782 2.1, 2.4."""
    return ip_address(ip).reverse_pointer.rpartition("." + ("ip6" if ":" in ip else "in-addr"))[0]
