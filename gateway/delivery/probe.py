"""Asking a next hop whether it would take mail for a mailbox, without sending any (RFC 5321 3.3 up to RCPT)."""

import asyncio

from gateway.core.address import Mailbox
from gateway.core.reply import Reply
from gateway.delivery.connection import ConnectionLost, HostUnusable, LoopsBack
from gateway.delivery.mx import NoHosts
from gateway.delivery.pool import HostBusy
from gateway.delivery.relay import Relay
from gateway.delivery.routes import ByMx, FixedHost, Routes

PROBE_S = 8.0


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
                    connection = await self._relay.connect(host, address, route)
                    answer = await connection.probe(mailbox)
                except (HostUnusable, HostBusy, LoopsBack, ConnectionLost):
                    continue
                self._relay.give_back(connection)
                return _meaning(answer)
        return None


def _meaning(answer: Reply) -> bool | None:
    """A refusal that speaks of us, of the sender or of the system says nothing of the mailbox (RFC 3463 3.2)."""
    if answer.is_success:
        return True
    subject = answer.status.split(".")[1] if answer.status else "1"
    return False if answer.is_permanent and subject in ("0", "1", "2") else None
