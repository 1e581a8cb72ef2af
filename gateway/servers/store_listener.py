"""Listeners of the store: connections within their bounds, TLS, and what dialogues of POP3 and IMAP have in common."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from gateway.core.ports import Counters, client_key
from gateway.imap.numbers import Together
from gateway.mailbox.store import MessageStore
from gateway.mailbox.turns import Turns
from gateway.net.listener import Acceptor
from gateway.servers.junk import JunkLessons
from gateway.servers.login import LoginGuard
from gateway.servers.watching import Watching
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics

HANDSHAKE_S = 30.0
STREAM_LIMIT = 64 * 1024  # octets that are read ahead

T = TypeVar("T")
_TURNS = Turns()


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """append_limit: octets of a message that a client stores; temporary: folder of those that are on their way in."""

    hostname: str
    connections: int
    connections_by_address: int
    append_limit: int
    temporary: Path


@dataclass(frozen=True, slots=True)
class StoreServer:
    """What a dialogue needs."""

    settings: StoreSettings
    store: MessageStore
    login: LoginGuard
    counters: Counters
    watching: Watching = field(default_factory=Watching, kw_only=True)
    together: Together = field(default_factory=Together, kw_only=True)
    metrics: Metrics
    tls_context: Callable[[], ssl.SSLContext]
    pool: ThreadPoolExecutor
    junk: JunkLessons

    async def in_turn(self, account: str, call: Callable[[], T]) -> T:
        """In the pool, one call of an account after the other."""
        async with _TURNS.of(account):
            return await self.in_pool(call)

    async def in_pool(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)


class Serve(Protocol):
    """One session, until it ends; is_tls: from the first octet. Whatever it raises ends that session alone."""

    async def __call__(
        self, server: StoreServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str, *, is_tls: bool
    ) -> None: ...


class StoreListener:
    """name: "pop3", "imap"; with an s where TLS is there from the first octet; both share the bounds."""

    def __init__(self, name: str, server: StoreServer, serve: Serve, sockets: list[socket.socket]) -> None:
        self._name = name
        self._protocol = name.removesuffix("s")
        self._log = log.get(self._protocol)
        self._server = server
        self._serve_session = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptors = [Acceptor(listening, self._on_connection) for listening in sockets]

    def _on_connection(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection, peer[0]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, ip: str) -> None:
        server, settings = self._server, self._server.settings
        by_address = client_key(self._protocol, ip)
        limits = (self._protocol, settings.connections), (by_address, settings.connections_by_address)
        full = server.counters.acquire(*limits)
        if full is not None:
            reason = "over_address_limit" if full == by_address else "over_limit"
            server.metrics.connections.labels(self._name, reason).inc()
            connection.close()
            return
        try:
            server.metrics.connections.labels(self._name, "accepted").inc()
            with server.metrics.sessions_open.labels(self._name).track_inprogress():
                await self._converse(connection, ip)
        finally:
            server.counters.release(self._protocol, by_address)

    async def _converse(self, connection: socket.socket, ip: str) -> None:
        is_tls = self._name.endswith("s")
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await _streams(connection, self._server.tls_context() if is_tls else None)
            await self._serve_session(self._server, reader, writer, ip, is_tls=is_tls)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            reason = str(error) or type(error).__name__
            self._log.info(f"{self._protocol} session ended", listener=self._name, client=ip, reason=reason)
        except Exception as error:
            self._log.error(f"{self._protocol} session failed", listener=self._name, client=ip, exc_info=error)
        finally:
            if writer is not None:
                writer.close()
            else:
                connection.close()

    async def drain(self) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()
        for task in list(self._tasks):
            task.cancel()  # what a session has been told is done is done: it may end at any point
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)


async def _streams(
    connection: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over an accepted socket. A client callback marks the protocol as a server's, which start_tls looks at."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=STREAM_LIMIT)
    made: asyncio.Future[asyncio.StreamWriter] = loop.create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.set_result(writer)

    protocol = asyncio.StreamReaderProtocol(reader, connected)
    await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_S if context else None
    )
    return reader, await made
