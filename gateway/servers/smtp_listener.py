"""From an accepted socket to a session: caps over all processes, the PROXY header, TLS, and who is trusted.

A peer in proxy_from, xclient_from or upstream is never trusted by its own address; the clients that the first two name
can be.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from gateway.core.address import unmapped
from gateway.core.ident import new_id
from gateway.core.ports import client_key
from gateway.core.reply import Reply, reply
from gateway.core.transaction import Session
from gateway.net.listener import Acceptor
from gateway.net.proxy_protocol import read_header
from gateway.servers.smtp import SmtpDriver
from gateway.servers.smtp_record import TransactionRecord
from gateway.servers.smtp_service import SmtpService
from gateway.smtp.connection import SmtpConnection
from gateway.smtp.handler import ServerSettings
from gateway.smtp.server import SmtpServer
from gateway.telemetry import log

TOO_MANY_IN_ALL = reply(421, "4.7.0", "Too many connections; try again later")
TOO_MANY_FROM_YOU = reply(421, "4.7.0", "Too many connections from your address")
HANDSHAKE_TIMEOUT_S = 30.0
IN_ALL = "connections"  # the gauge of all connections

_log = log.get("smtp")


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    name: str  # "smtp" "submission" "submissions"
    connections: int
    connections_by_address: int
    proxy_from: Container[str]
    xclient_from: Container[str]
    trusted: Container[str]
    repair_bare_lf_from: Container[str]

    @property
    def is_implicit_tls(self) -> bool:
        return self.name == "submissions"


class SmtpListener:
    """All sockets of one listener in one worker."""

    def __init__(
        self,
        settings: ListenerSettings,
        protocol: ServerSettings,
        service: SmtpService,
        tls: Callable[[], ssl.SSLContext] | None,
        sockets: list[socket.socket],
    ) -> None:
        self._settings = settings
        self._protocol = protocol
        self._service = service
        self._tls = tls
        self._sessions: set[SmtpConnection] = set()
        self._drained = asyncio.Event()
        self._arriving: set[asyncio.Task[None]] = set()
        self._acceptors = [Acceptor(listening, self._on_connection) for listening in sockets]

    def _on_connection(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._admit(connection, *peer))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _admit(self, connection: socket.socket, ip: str, port: int) -> None:
        settings, metrics = self._settings, self._service.metrics
        ip = _plain_ip(ip)
        is_proxy = ip in settings.proxy_from
        gauges = self._counted(connection, ip, port, in_all=True, by_address=not is_proxy)
        if not gauges:
            return
        try:
            if is_proxy:
                client = await read_header(connection)
                if client is None:
                    self._turn_away(connection, ip, port, None, "no_proxy_header")
                    return
                if client.ip is not None:
                    ip, port = _plain_ip(client.ip), client.port
                own = self._counted(connection, ip, port, in_all=False, by_address=True)
                if not own:
                    return
                gauges += own
            # Judged by whom the connection is really from: a proxy's rights are never its clients'.
            may_xclient = ip in settings.xclient_from
            is_upstream = ip in self._service.upstream
            is_own = not may_xclient and ip not in settings.proxy_from and not is_upstream
            is_trusted = is_own and ip in settings.trusted
            session = Session(new_id(), settings.name, ip, port, is_trusted, is_upstream=is_upstream)
            driver = SmtpDriver(self._service, gauges)
            metrics.connections.labels(settings.name, "accepted").inc()
            metrics.sessions_open.labels(settings.name).inc()
            is_begun = False
            try:
                is_begun = await self._start(connection, session, driver, may_xclient=may_xclient)
            finally:
                if is_begun:
                    gauges = ()  # the driver gives them back
                else:
                    metrics.sessions_open.labels(settings.name).dec()
        finally:
            if gauges:
                self._service.counters.release(*gauges)

    def _counted(
        self, connection: socket.socket, ip: str, port: int, *, in_all: bool, by_address: bool
    ) -> tuple[str, ...]:
        """The gauges that count the connection from now on; none: a limit was reached, and it was turned away."""
        settings, key = self._settings, client_key("connections", ip)
        limits = [(IN_ALL, settings.connections)] if in_all else []
        limits += [(key, settings.connections_by_address)] if by_address else []
        full = self._service.counters.acquire(*limits)
        if full is None:
            return tuple(gauge for gauge, _ in limits)
        if full == IN_ALL:
            self._turn_away(connection, ip, port, TOO_MANY_IN_ALL, "over_limit")
        else:
            self._turn_away(connection, ip, port, TOO_MANY_FROM_YOU, "over_address_limit")
        return ()

    async def _start(
        self, connection: socket.socket, session: Session, driver: SmtpDriver, *, may_xclient: bool
    ) -> bool:
        def protocol() -> SmtpServer:
            server = SmtpServer(
                driver,
                session,
                self._protocol,
                tls_context=self._tls,
                repair_line_ends=session.client_ip in self._settings.repair_bare_lf_from,
                xclient=may_xclient,
                on_done=self._done,
            )
            made.append(server)
            self._sessions.add(server)
            return server

        made: list[SmtpConnection] = []
        try:
            context = self._tls() if self._settings.is_implicit_tls and self._tls is not None else None
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context else None
            )
        except asyncio.CancelledError:
            if all(server.is_new for server in made):
                raise
            return True  # it has begun already, so it will report its end: `drain` waits for it
        except (OSError, ssl.SSLError) as error:
            _log.info("handshake failed", session=session.id, client=session.client_ip, reason=str(error))
            connection.close()
            return False
        finally:
            # Without a transport the connection never began, so it will never report its end.
            for server in made:
                if server.transport is None and server.is_new:
                    self._done(server)
        return True

    def _done(self, server: SmtpConnection) -> None:
        self._sessions.discard(server)
        if not self._sessions:
            self._drained.set()

    def _turn_away(self, connection: socket.socket, ip: str, port: int, answer: Reply | None, result: str) -> None:
        self._service.metrics.connections.labels(self._settings.name, result).inc()
        if answer is not None:
            decision_id = new_id()
            answer = answer.with_id(decision_id)
            record = TransactionRecord()
            record.add_refusal("connect", answer, decision_id)
            session = Session(new_id(), self._settings.name, ip, port, is_trusted=False)
            record.write(self._service.recorder, session, result, answer)
        if answer is not None and not self._settings.is_implicit_tls:
            with suppress(OSError):
                connection.send(answer.render())
        connection.close()

    async def drain(self) -> None:
        """Stop accepting, ask every session to end, wait for them all. The caller has the deadline."""
        for acceptor in self._acceptors:
            acceptor.stop()
        for task in list(self._arriving):
            task.cancel()  # still in the PROXY header or the handshake: nothing was said yet
        for server in list(self._sessions):
            server.drain()
        self._drained.clear()
        if self._sessions:
            await self._drained.wait()


@lru_cache(maxsize=8192)
def _plain_ip(text: str) -> str:
    """IPv4-mapped addresses as IPv4, zones dropped."""
    return str(unmapped(ip_address(text.partition("%")[0])))
