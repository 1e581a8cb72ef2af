"""Each fact that comes from DNS, with a name server that delays, drops, truncates and fails."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.checks.dnsbl import DnsLists, DomainLists, UriLists
from gateway.checks.links import Links
from gateway.checks.names import Names, ReverseDns
from gateway.checks.runner import Check
from gateway.demo.nameserver import NameServer
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.policy.catalogue import declared
from gateway.policy.context import Context, Need, arguments_of
from gateway.policy.values import UNKNOWN, Found
from tests.support.policies import context

RECORDS = (
    "7.113.0.203.in-addr.arpa PTR mx.sender.example.", "mx.sender.example A 203.0.113.7",
    "sender.example MX 10 mx.sender.example.", "null.example MX 0 .", "to.example MX 10 mx.sender.example.",
    "2.0.0.127.bl.test A 127.0.0.2", "7.113.0.203.bl.test A 127.0.0.4",
    "test.dbl.test A 127.0.1.2", "sender.example.dbl.test A 127.0.1.2", "bad.example.dbl.test A 127.0.1.5",
)  # fmt: skip
MESSAGE = b"From: <a@sender.example>\r\n\r\nsee http://www.bad.example/x\r\n"
FACTS: dict[str, tuple[Found, str]] = {
    "client.name": ("mx.sender.example", "a@sender.example"),
    "client.ptr": ("mx.sender.example", "a@sender.example"),
    "client.reverse_dns": ("pass", "a@sender.example"),
    "helo.resolves": (True, "a@sender.example"),
    "sender.domain_exists": (True, "a@sender.example"),
    "sender.null_mx": (True, "a@null.example"),
    "recipient.domain_exists": (True, "a@sender.example"),
    'dnsbl("bl.test")': (("127.0.0.4",), "a@sender.example"),
    'dnswl("bl.test", "127.0.0.4-9")': (("127.0.0.4",), "a@sender.example"),
    'rhsbl("sender", "dbl.test")': (("127.0.1.2",), "a@sender.example"),
    'uribl("dbl.test")': (("127.0.1.5",), "a@sender.example"),
}


@pytest.fixture(scope="module")
def running() -> Iterator[NameServer]:
    with NameServer(RECORDS) as server:
        yield server


@pytest.fixture
def dns(running: NameServer) -> Iterator[NameServer]:
    yield running
    running.fault("*", None)


def asked(dns: NameServer, key: str, where: Context) -> Found:
    """By checks that know nothing yet."""
    fact = declared(key)
    assert fact is not None
    need = Need(key, fact.name, arguments_of(key) if "(" in key else (), fact.stage, fact.cost, fact.provider)

    async def ask() -> Found:
        settings = ResolverSettings([f"{dns.host}:{dns.port}"], lifetime_s=0.5, timeout_s=0.2)
        resolver = DnsResolver(settings, lambda rdtype, result, seconds: None)
        reverse, lists = ReverseDns(resolver), DnsLists(resolver, lambda zone, is_up: None)
        checks: dict[str, Check] = {
            "reverse_dns": reverse, "names": Names(resolver), "dnsbl": lists, "dnswl": lists,
            "rhsbl": DomainLists(resolver, reverse, lambda zone, is_up: None),
            "uribl": UriLists(resolver, Links(), lambda zone, is_up: None),
        }  # fmt: skip
        async with asyncio.timeout(10):
            return await checks[fact.provider].fetch(need, where)

    return asyncio.run(ask())


@pytest.mark.parametrize("key", FACTS)
@pytest.mark.parametrize(
    ("fault", "is_known"),
    [(None, True), ("delay:0.05", True), ("truncate", True), ("drop", False), ("servfail", False), ("garbage", False),
     ("refused", False)],
)  # fmt: skip
def test_a_fact_is_right_or_unknown(dns: NameServer, key: str, fault: str | None, is_known: bool) -> None:
    dns.fault("*", fault)
    value, sender = FACTS[key]
    found = asked(dns, key, context(sender=sender, recipient="b@to.example", message=MESSAGE))
    assert found == (value if is_known else UNKNOWN)
