"""The Resolver over dnspython: answers as values, cached, one query for many who wait, every look-up with a deadline.

TTLs are clamped to 5 s..1 h, negative answers to 5 s..15 min, failures are kept for 5 s. The cache is bounded.
Truncated UDP answers are asked again over TCP by dnspython. No search list, no /etc/hosts: names are absolute.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from gateway.core.ports import Answer, DnsFailure, NoData, NoDomain, Records
from gateway.dns.budget import OVER_BUDGET, spend_lookup

MIN_TTL_S, MAX_TTL_S = 5.0, 3600.0
MAX_NEGATIVE_S = 900.0
FAILURE_S = 5.0
CACHE_SIZE = 50_000
MAX_IN_FLIGHT = 500  # queries out at once
# Here, for dnspython would import it at the first query, which the service's user may not be able to.
_BACKEND = dns.asyncbackend.get_backend("asyncio")


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """servers: `ip:port`, none: the system's; lifetime_s: one look-up with all its retries; timeout_s: one try.
    validating: they check DNSSEC, and nobody between them and us can change what they say.
    """

    servers: Sequence[str] = ()
    validating: bool = False
    lifetime_s: float = 8.0
    timeout_s: float = 2.0


class DnsResolver:
    """`core.ports.Resolver`. on_query(rdtype, result, seconds) is called for each look-up that went out."""

    def __init__(self, settings: ResolverSettings, on_query: Callable[[str, str, float], None]) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not settings.servers)
        if settings.servers:
            self._resolver.nameservers = name_servers(settings.servers)
        self._resolver.timeout = settings.timeout_s
        self._resolver.lifetime = settings.lifetime_s
        self._resolver.use_edns(0, 0, 1232)
        self._resolver.set_flags(dns.flags.RD | dns.flags.AD)  # RFC 6840 5.7: AD asks to be told
        self._believes_ad = settings.validating or all(map(_is_loopback, self._resolver.nameservers))
        self._on_query = on_query
        self._cache: OrderedDict[tuple[str, str], tuple[float, Answer]] = OrderedDict()
        self._flights: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def lookup(self, name: str, rdtype: str) -> Answer:
        key = (name.lower(), rdtype)
        cached = self._cache.get(key)
        if cached is not None and cached[0] > time.monotonic():
            return cached[1]
        flight = self._flights.get(key)
        if flight is None:
            if not spend_lookup():
                return OVER_BUDGET
            flight = asyncio.create_task(self._ask(key))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)  # one that waits may give up; the others go on

    async def _ask(self, key: tuple[str, str]) -> Answer:
        name, rdtype = key
        async with self._slots:
            started = time.monotonic()
            answer, ttl = await self._resolve(name, rdtype)
            self._on_query(rdtype, _WORDS[type(answer)], time.monotonic() - started)
        self._cache[key] = (time.monotonic() + ttl, answer)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return answer

    async def _resolve(self, name: str, rdtype: str) -> tuple[Answer, float]:
        try:
            found = await self._resolver.resolve(
                f"{name}.", rdtype, raise_on_no_answer=False, search=False, backend=_BACKEND
            )
        except dns.resolver.NXDOMAIN as error:
            return NoDomain(), _negative_ttl(error)
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            return NoDomain(), MIN_TTL_S  # there can be no such name
        except dns.resolver.LifetimeTimeout:
            return DnsFailure("timeout"), FAILURE_S
        except dns.resolver.NoNameservers:
            return DnsFailure("no usable answer"), FAILURE_S
        except (dns.exception.DNSException, OSError, ValueError) as error:
            # A CNAME loop or chain that is too long, a name that is none: not usable, maybe later.
            return DnsFailure(type(error).__name__), FAILURE_S
        ttl = found.chaining_result.minimum_ttl  # of CNAMEs and records, or of the SOA of a negative answer
        if found.rrset is None:
            return NoData(), _clamp(ttl, MAX_NEGATIVE_S)
        is_authenticated = self._believes_ad and bool(found.response.flags & dns.flags.AD)
        return Records(tuple(_value(record) for record in found.rrset), is_authenticated), _clamp(ttl, MAX_TTL_S)


def name_servers(servers: Sequence[str]) -> list[str | dns.nameserver.Nameserver]:
    """servers: `ip:port`; for a resolver of dnspython."""
    pairs = (server.rpartition(":") for server in servers)
    return [dns.nameserver.Do53Nameserver(host, int(port)) for host, _, port in pairs]


def _is_loopback(server: str | dns.nameserver.Nameserver) -> bool:
    return ip_address(str(getattr(server, "address", server)).partition("%")[0]).is_loopback


def _value(record: object) -> object:
    match getattr(record, "rdtype", None):
        case dns.rdatatype.MX:
            host = str(record.exchange).rstrip(".").lower()  # type: ignore[attr-defined]  # an MX rdata
            return (int(record.preference), host)  # type: ignore[attr-defined]
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return str(record.address)  # type: ignore[attr-defined]
        case dns.rdatatype.PTR | dns.rdatatype.CNAME:
            return str(record.target).rstrip(".").lower()  # type: ignore[attr-defined]  # a name
        case dns.rdatatype.TXT:
            return b"".join(record.strings)  # type: ignore[attr-defined]
        case _:
            return str(record)


def _clamp(ttl: float, most: float) -> float:
    return min(max(ttl, MIN_TTL_S), most)


def _negative_ttl(error: dns.resolver.NXDOMAIN) -> float:
    """RFC 2308 5: the smaller of the SOA's TTL and minimum."""
    for response in error.responses().values():  # type: ignore[no-untyped-call]
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                return _clamp(min(rrset.ttl, rrset[0].minimum), MAX_NEGATIVE_S)
    return MIN_TTL_S


_WORDS: dict[type, str] = {Records: "found", NoData: "nodata", NoDomain: "nxdomain", DnsFailure: "failure"}
