"""Protocols of the outside world that pure rooms take as arguments."""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Protocol

from gateway.core.address import Domain, Mailbox, unmapped


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""


@dataclass(frozen=True, slots=True)
class Records:
    """Answer data in presentation order: MX as (preference, host), addresses as text, names without their last
    dot, TXT as joined octets. is_authenticated: DNSSEC vouches for them, by a resolver that may be believed.
    """

    values: tuple[object, ...]
    is_authenticated: bool = False


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

    def without_tag(self, mailbox: Mailbox) -> str:
        """`local@domain` in lower case; of a local domain without the tag that its users may add."""

    def is_probed(self, domain: Domain) -> bool:
        """Is it a relay domain whose next hop is asked which mailboxes there are?"""

    def choice(self, recipient: Mailbox, sender: str) -> bool | None:
        """Has the recipient welcomed (True) or blocked (False) this address? None: nothing was said of it."""

    def owns(self, user: str, mailbox: Mailbox) -> bool:
        """Is it the user's own address, or an alias that leads to the user?"""


class EarlyTalk(Protocol):
    async def __call__(self, seconds: float) -> bool:
        """Has the client spoken before it was greeted? Asked before the greeting, waits so long for it to."""


class Counters(Protocol):
    """Gauges and windows that hold over all processes."""

    def acquire(self, *limits: tuple[str, int]) -> str | None:
        """Add one to each gauge, by key. Or to none: then the key of one that has reached its limit."""

    def release(self, *keys: str) -> None: ...

    def hit(self, key: str, window_s: float, amount: float = 1.0) -> float:
        """Count an event; the count of the running window, which began with its first event."""

    def count(self, key: str) -> float: ...

    def forget(self, key: str) -> None: ...


@lru_cache(maxsize=8192)
def client_key(prefix: str, ip: str) -> str:
    """One key a client: an IPv4 address, or the /64 that an IPv6 client owns whole."""
    address = unmapped(ip_address(ip))
    return f"{prefix}:{address.packed[:8].hex() if address.version == 6 else address}"


def client_network(ip: str) -> str:
    """The network that a client is one of many in: the first address of its /24, or of its /64."""
    return str(ip_network(f"{ip}/{64 if ':' in ip else 24}", strict=False).network_address)
