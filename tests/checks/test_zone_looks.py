"""Whether a DNS list works is looked at once for all, and at no message's expense."""

import asyncio

from gateway.checks.dnsbl import DOMAIN_POINTS
from gateway.checks.zones import Zones
from gateway.demo.nameserver import NameServer
from gateway.dns.budget import lookup_budget
from gateway.dns.resolver import DnsResolver, ResolverSettings

RECORDS = ["test.list.example A 127.0.0.2", "2.0.0.127.list.example A 127.0.0.2", "bad.test.list.example A 127.0.0.2"]


def test_a_message_without_look_ups_left_switches_no_list_off() -> None:
    """And many who ask a list that nobody has asked yet have it looked at once."""
    told: list[bool] = []

    async def story(address: str) -> None:
        resolver = DnsResolver(ResolverSettings([address]), lambda rdtype, result, seconds: None)
        zones = Zones(resolver, DOMAIN_POINTS, lambda zone, is_up: told.append(is_up))
        with lookup_budget(3):
            found = await asyncio.gather(*(zones.ask(f"d{number}.test", "list.example") for number in range(20)))
        assert found.count(()) == 3
        assert found.count(None) == 17
        with lookup_budget(1):
            assert await zones.ask("bad.test", "list.example") == ("127.0.0.2",)

    with NameServer(RECORDS) as dns:
        asyncio.run(story(dns.address))
    assert told == [True]
