"""Protocols of the outside world that pure rooms take as arguments."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from gateway.core.address import Domain, Mailbox


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""


@dataclass(frozen=True, slots=True)
class Records:
    """Answer data in presentation order: MX as (preference, host), addresses as text, TXT as joined octets."""

    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists (or may) but has no such record."""


@dataclass(frozen=True, slots=True)
class NoDomain:
    """NXDOMAIN."""


@dataclass(frozen=True, slots=True)
class DnsFailure:
    """Timeout, SERVFAIL, or an answer that cannot be used: it may work later."""

    reason: str


Answer = Records | NoData | NoDomain | DnsFailure


class Resolver(Protocol):
    async def lookup(self, name: str, rdtype: str) -> Answer:
        """name: A-labels; rdtype: "MX" "A" "AAAA" "TXT" "PTR". Never raises for DNS trouble; has its own deadline."""


class Directory(Protocol):
    """Who is here. All calls are quick and local."""

    def is_local(self, domain: Domain) -> bool: ...

    def is_relayed(self, domain: Domain) -> bool: ...

    def exists(self, mailbox: Mailbox) -> bool:
        """Is there an account or alias for a mailbox of a local domain? (plus-addressing applied)"""


class Counters(Protocol):
    """Gauges and windows that hold over all processes."""

    def acquire(self, key: str, limit: int) -> bool:
        """Add one to a gauge unless it has reached `limit`."""

    def release(self, *keys: str) -> None: ...

    def hit(self, key: str, window_s: float, amount: float = 1.0) -> float:
        """Count an event; the count of the running window, which began with its first event."""

    def count(self, key: str) -> float: ...

    def forget(self, key: str) -> None: ...


def client_key(prefix: str, ip: str) -> str:
    """One key a client: an IPv4 address, or the /64 that an IPv6 client owns whole."""
    address = ip_address(ip)
    if address.version == 6:
        mapped = address.ipv4_mapped
        return f"{prefix}:{mapped}" if mapped is not None else f"{prefix}:{address.packed[:8].hex()}"
    return f"{prefix}:{ip}"
