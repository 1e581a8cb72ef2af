"""Asking a next hop whether it would take mail for a mailbox, without sending any (RFC 5321 3.3 up to RCPT)."""

import asyncio

from gateway.core.address import Mailbox
from gateway.core.reply import Reply
from gateway.delivery.connection import ConnectionLost, HostUnusable, LoopsBack
from gateway.delivery.mx import Host, NoHosts
from gateway.delivery.pool import HostBusy
from gateway.delivery.relay import Relay
from gateway.delivery.routes import ByMx, FixedHost, Routes

PROBE_S = 8.0
# RFC 3463 3.2, 3.3: bad mailbox, system, syntax, ambiguous, moved; disabled. "Other" is what many say of an address.
_NO_SUCH_MAILBOX = frozenset(
    {"5.0.0", "5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.6", "5.1.10", "5.2.0", "5.2.1"}
)


class Prober:
    def __init__(self, relay: Relay, routes: Routes) -> None:
        self._relay = relay
        self._routes = routes

    async def probe(self, mailbox: Mailbox) -> bool | None:
        """Does it exist? None: nobody there said. Has its own deadline."""
        route = self._routes.route(mailbox.domain.ascii)
        if not isinstance(route, ByMx | FixedHost):
            return None
        try:
            async with asyncio.timeout(PROBE_S):
                return await self._ask(mailbox, route)
        except TimeoutError:
            return None

    async def _ask(self, mailbox: Mailbox, route: ByMx | FixedHost) -> bool | None:
        hosts = await self._relay.hosts(mailbox.domain, route)
        if isinstance(hosts, NoHosts):
            return None
        for host in hosts:
            for address in host.addresses:
                try:
                    return await self._ask_host(mailbox, host, address, route)
                except (HostUnusable, HostBusy, LoopsBack, ConnectionLost):
                    continue
        return None

    async def _ask_host(self, mailbox: Mailbox, host: Host, address: str, route: ByMx | FixedHost) -> bool | None:
        connection = await self._relay.connect(host, address, route)
        is_reused = connection.uses > 0
        try:
            answer: Reply | None = await connection.probe(mailbox)
        except ConnectionLost:
            if not is_reused:
                raise
            answer = None
        if answer is None:
            # The host had finished with the connection, not with us.
            connection = await self._relay.connect(host, address, route, fresh=True)
            answer = await connection.probe(mailbox)
        self._relay.give_back(connection)
        return _meaning(answer)


def _meaning(answer: Reply) -> bool | None:
    """A refusal that speaks of us, of the sender or of the system says nothing of the mailbox."""
    if answer.is_success:
        return True
    if not answer.status:
        return False if answer.code in (550, 551, 553) else None  # RFC 5321 4.2.3
    return False if answer.status in _NO_SUCH_MAILBOX else None
