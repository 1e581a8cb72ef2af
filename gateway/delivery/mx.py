"""The hosts to try for a domain, in order (RFC 5321 5.1, RFC 7505, RFC 3974), and what to say when there are none.

CNAMEs are followed by the resolver. If we ourselves are among the MX hosts, those that are no nearer than we are left
out (5.1: a relay must not send to hosts of its own or a greater preference number), so no loop can form.
"""

import random
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.core.address import Domain, unmapped
from gateway.core.ports import DnsFailure, NoData, NoDomain, Records, Resolver
from gateway.core.reply import Reply, reply

MAX_HOSTS = 10
MAX_ADDRESSES = 20
LOOP = "5.4.6"  # RFC 3463: routing loop


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hosts:
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class NoHosts:
    """reply is permanent or temporary: what the recipient's outcome is."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class MxSettings:
    """own_names: host names that are this gateway; own_addresses: `ip` texts that its port-25 listeners answer on."""

    own_names: frozenset[str]
    own_addresses: frozenset[str]
    allow_private: bool = False


async def find_hosts(domain: Domain, resolver: Resolver, settings: MxSettings) -> Hosts | NoHosts:
    """Raises nothing of its own."""
    if domain.is_literal:
        literal = domain.ascii[1:-1].removeprefix("IPv6:")
        return _usable([(0, Host(domain.ascii, (literal,)))], settings, domain)
    exchanges = await _exchanges(domain, resolver)
    if isinstance(exchanges, NoHosts):
        return exchanges
    found: list[tuple[int, Host]] = []
    failure: DnsFailure | None = None
    for preference, name in exchanges[:MAX_HOSTS]:
        addresses = await find_addresses(name, resolver)
        if isinstance(addresses, DnsFailure):
            failure = addresses
            addresses = ()
        found.append((preference, Host(name, addresses)))
    usable = _usable(found, settings, domain)
    if failure is not None and isinstance(usable, NoHosts) and usable.reply.status != LOOP:
        return NoHosts(reply(451, "4.4.3", f"DNS trouble with the mail hosts of {domain}: {failure.reason}"))
    return usable


async def _exchanges(domain: Domain, resolver: Resolver) -> list[tuple[int, str]] | NoHosts:
    match await resolver.lookup(domain.ascii, "MX"):
        case Records(values=values):
            exchanges = [value for value in values if isinstance(value, tuple)]
            if any(name == "" for _, name in exchanges):
                return NoHosts(reply(556, "5.1.10", f"{domain} takes no mail (null MX)"))
            random.shuffle(exchanges)  # 5.1: equal preferences share the load
            return sorted(exchanges, key=lambda exchange: int(exchange[0]))
        case NoData():
            return [(0, domain.ascii)]  # 5.1: the implicit MX
        case NoDomain():
            return NoHosts(reply(550, "5.1.2", f"The domain {domain} does not exist"))
        case DnsFailure(reason=reason):
            return NoHosts(reply(451, "4.4.3", f"DNS trouble with {domain}: {reason}"))


async def find_addresses(name: str, resolver: Resolver) -> tuple[str, ...] | DnsFailure:
    """IPv6 before IPv4; a failure of one family counts only when the other has nothing."""
    try:
        return (str(ip_address(name)),)
    except ValueError:
        pass
    found: list[str] = []
    failure: DnsFailure | None = None
    for rdtype in ("AAAA", "A"):
        match await resolver.lookup(name, rdtype):
            case Records(values=values):
                found += [str(value) for value in values]
            case DnsFailure() as trouble:
                failure = trouble
            case _:
                pass
    return failure if failure is not None and not found else tuple(found[:MAX_ADDRESSES])


def _usable(found: list[tuple[int, Host]], settings: MxSettings, domain: Domain) -> Hosts | NoHosts:
    """Drop ourselves and what is no nearer, hosts without address, and private addresses unless allowed."""
    ours = [
        preference
        for preference, host in found
        if host.name in settings.own_names or settings.own_addresses.intersection(host.addresses)
    ]
    nearer = [(preference, host) for preference, host in found if not ours or preference < min(ours)]
    if ours and not nearer:
        return NoHosts(reply(554, LOOP, f"Mail for {domain} loops back to this host"))
    public = [
        Host(host.name, tuple(address for address in host.addresses if settings.allow_private or _is_public(address)))
        for _, host in nearer
    ]
    usable = tuple(host for host in public if host.addresses)
    if usable:
        return Hosts(usable)
    if any(host.addresses for _, host in nearer):
        return NoHosts(reply(550, "5.4.4", f"The mail hosts of {domain} have private addresses only"))
    return NoHosts(reply(550, "5.4.4", f"{domain} has no mail host with an address"))


def _is_public(address: str) -> bool:
    return unmapped(ip_address(address)).is_global
