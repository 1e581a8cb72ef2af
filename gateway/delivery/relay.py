"""One attempt to hand a claim's recipients to the next hop: hosts in order, each address, one transaction.

Returns an outcome for every recipient; what that means for the queue is `queue.runner`'s matter.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gateway.core.address import Domain, Mailbox, ReversePath
from gateway.core.outcome import Deferred, Delivered, Failed, Outcome
from gateway.core.ports import DnsFailure, Resolver
from gateway.core.reply import Reply, reply
from gateway.core.verdict import Protection
from gateway.delivery.connection import (
    UNIX,
    Connection,
    ConnectionLost,
    Credentials,
    HostUnusable,
    LoopsBack,
    Target,
    TlsMode,
)
from gateway.delivery.mx import Host, MxSettings, NoHosts, find_addresses, find_hosts
from gateway.delivery.pool import BUSY, HostBusy, Pool
from gateway.delivery.routes import ByMx, FixedHost
from gateway.message.blob import INLINE_LIMIT, Blob
from gateway.smtp.client import Outgoing, needs_7bit, unfit

READ_SIZE = 256 * 1024
MAX_TRIES = 5  # addresses tried in one attempt

_MODES = {
    Protection.ANY: TlsMode.MAY,
    Protection.ENCRYPTED: TlsMode.ENCRYPT,
    Protection.VERIFIED: TlsMode.VERIFY,
}
CONVERSION_NEEDED = reply(554, "5.6.3", "The next host takes 7-bit mail only; this message is 8-bit (RFC 6152)")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What to deliver: header, then blob from offset. recipients: (mailbox, orcpt, notify)."""

    reverse_path: ReversePath
    recipients: tuple[tuple[Mailbox, str, frozenset[str]], ...]
    header: bytes
    blob: Blob
    offset: int
    body: str
    smtputf8: bool
    ret: str
    envid: str
    protection: Protection = Protection.ANY

    @property
    def size(self) -> int:
        return len(self.header) + self.blob.size - self.offset

    @property
    def is_small(self) -> bool:
        return self.size <= INLINE_LIMIT + len(self.header)

    def pieces(self) -> Iterator[bytes]:
        yield self.header
        with self.blob.open() as file:
            file.seek(self.offset)
            while octets := file.read(READ_SIZE):
                yield octets

    def has_8bit(self) -> bool:
        """Looked at only where it matters: 8BITMIME or SMTPUTF8 was declared."""
        return any(not piece.isascii() for piece in self.pieces())


class Relay:
    def __init__(self, pool: Pool, resolver: Resolver, mx: MxSettings, port: int) -> None:
        self._pool = pool
        self._resolver = resolver
        self._mx = mx
        self._port = port

    async def deliver(
        self, delivery: Delivery, domain: Domain, route: ByMx | FixedHost, is_ours: Callable[[], bool]
    ) -> list[Outcome]:
        """Outcomes in the order of the recipients. Raises LeaseLost, and nothing else of its own."""
        hosts = await self.hosts(domain, route)
        if isinstance(hosts, NoHosts):
            return [_outcome(hosts.reply, "", host_down=hosts.reply.is_temporary)] * len(delivery.recipients)
        last: list[Outcome] | None = None
        busy_s = 0.0
        tries = 0
        for host in hosts:
            for address in host.addresses:
                if tries >= MAX_TRIES:
                    break
                tries += 1
                try:
                    outcomes = await self._attempt(delivery, host, address, route, is_ours)
                except HostBusy as error:
                    busy_s = max(busy_s, error.again_in_s)
                    continue
                except LoopsBack:
                    # What is no nearer than ourselves must not be tried (RFC 5321 5.1).
                    answer = reply(554, "5.4.6", f"Mail for {domain} loops back to this host")
                    return last or [Failed(answer)] * len(delivery.recipients)
                except HostUnusable as error:
                    # What this message asks for beyond others' need is no reason to keep theirs waiting.
                    is_own = error.tls and delivery.protection is not Protection.ANY
                    down = error.is_down and not is_own
                    last = [Deferred(error.reply, host.name, host_down=down)] * len(delivery.recipients)
                    continue
                if outcomes is not None and not _is_all_host_trouble(outcomes):
                    return outcomes
                lost = reply(451, "4.4.2", f"{host.name}[{address}] closed the connection in mid-transaction")
                last = outcomes if outcomes is not None else [Deferred(lost, host.name)] * len(delivery.recipients)
        if busy_s or last is None:
            return [Deferred(BUSY, again_in_s=busy_s or 1.0)] * len(delivery.recipients)
        return last

    async def hosts(self, domain: Domain, route: ByMx | FixedHost) -> tuple[Host, ...] | NoHosts:
        """Where mail for the domain goes, in the order to try."""
        if isinstance(route, FixedHost):
            if route.host.startswith(UNIX):
                return (Host(route.host, (route.host,)),)
            addresses = await find_addresses(route.host, self._resolver)
            if isinstance(addresses, DnsFailure):
                return NoHosts(reply(451, "4.4.3", f"DNS trouble with {route.host}: {addresses.reason}"))
            if not addresses:
                return NoHosts(reply(451, "4.4.4", f"The next hop {route.host} has no address"))
            return (Host(route.host, addresses),)
        found = await find_hosts(domain, self._resolver, self._mx)
        return found if isinstance(found, NoHosts) else found.hosts

    async def _attempt(
        self, delivery: Delivery, host: Host, address: str, route: ByMx | FixedHost, is_ours: Callable[[], bool]
    ) -> list[Outcome] | None:
        """None when the connection was lost in mid-transaction. Raises HostUnusable, HostBusy, LoopsBack."""
        connection = await self.connect(host, address, route, delivery.protection)
        is_reused = connection.uses > 0
        outcomes = await self._transact(connection, delivery, host, is_ours)
        if is_reused and outcomes is None:
            # The server closed while the connection was idle: not its refusal, so once more on a new one.
            connection = await self.connect(host, address, route, delivery.protection, fresh=True)
            outcomes = await self._transact(connection, delivery, host, is_ours)
        return outcomes

    async def connect(
        self,
        host: Host,
        address: str,
        route: ByMx | FixedHost,
        protection: Protection = Protection.ANY,
        *,
        fresh: bool = False,
    ) -> Connection:
        """fresh: not one that was used before. Raises HostUnusable, HostBusy, LoopsBack."""
        mode, port, credentials, ca_file = self._manner(route, protection)
        is_lmtp = isinstance(route, FixedHost) and route.is_lmtp
        target = Target(host.name, address, port, mode, credentials.username if credentials else "", is_lmtp)
        try:
            return await self._pool.acquire(target, credentials, ca_file, fresh=fresh)
        except HostUnusable as error:
            if not error.tls or mode is not TlsMode.MAY:
                raise
            # RFC 7435: opportunistic TLS must not stop mail that would have gone in clear.
            return await self._pool.acquire(replace(target, mode=TlsMode.NONE), None, None, fresh=fresh)

    async def close(self) -> None:
        await self._pool.close()

    def give_back(self, connection: Connection) -> None:
        self._pool.release(connection)

    async def _transact(
        self, connection: Connection, delivery: Delivery, host: Host, is_ours: Callable[[], bool]
    ) -> list[Outcome] | None:
        """None when the connection was lost before the end of data."""
        is_declared = delivery.body == "8BITMIME" or delivery.smtputf8
        outgoing = Outgoing(
            delivery.reverse_path, delivery.recipients, delivery.size, delivery.body, delivery.smtputf8,
            delivery.ret, delivery.envid, is_declared and await self._has_8bit(delivery),
        )  # fmt: skip
        refusal = unfit(outgoing, connection.extensions)
        if refusal is None and needs_7bit(outgoing, connection.extensions):
            refusal = CONVERSION_NEEDED
        if refusal is not None:
            self._pool.release(connection)
            return [Failed(refusal, host.name)] * len(delivery.recipients)
        try:
            answers = await connection.transaction(outgoing, delivery.pieces, delivery.is_small, is_ours)
        except ConnectionLost as error:
            if not error.after_end:
                return None
            answer = reply(451, "4.4.2", f"{host.name} lost after the end of data: {error}")
            return [Deferred(answer, host.name)] * len(delivery.recipients)
        has_dsn = connection.extensions.has("DSN")
        self._pool.release(connection)
        return [_outcome(answer, host.name, has_dsn=has_dsn) for answer in answers]

    @staticmethod
    async def _has_8bit(delivery: Delivery) -> bool:
        return delivery.has_8bit() if delivery.is_small else await asyncio.to_thread(delivery.has_8bit)

    def _manner(
        self, route: ByMx | FixedHost, protection: Protection
    ) -> tuple[TlsMode, int, Credentials | None, str | None]:
        mode = _MODES[protection]
        match route:
            case ByMx():
                return mode, self._port, None, None
            case FixedHost():
                credentials = Credentials(route.username, route.password, route.auth) if route.username else None
                if route.host.startswith(UNIX):
                    mode = TlsMode.NONE  # what never leaves the machine
                elif route.scheme == "submissions":
                    mode = TlsMode.IMPLICIT
                elif route.must_verify:
                    mode = TlsMode.VERIFY
                return mode, route.port, credentials, route.ca_file


def _outcome(answer: Reply, remote: str, *, has_dsn: bool = False, host_down: bool = False) -> Outcome:
    if answer.is_success:
        return Delivered(answer, remote, relayed_dsn=has_dsn)
    if answer.is_permanent:
        return Failed(answer, remote)
    return Deferred(answer, remote, host_down=host_down)


def _is_all_host_trouble(outcomes: list[Outcome]) -> bool:
    """421 to the whole transaction: another MX host may do better."""
    return all(isinstance(outcome, Deferred) and outcome.reply.code == 421 for outcome in outcomes)
