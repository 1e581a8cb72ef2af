"""HTTP/1.1 for an ASGI application, with the caps of a public server: uvicorn's protocol over our accept loop.

uvicorn alone waits for ever for a request that does not come; here a connection has a lifetime, and each client address
a number of them.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gateway.core.ports import client_key
from gateway.net.listener import Acceptor
from gateway.telemetry import log

LIFETIME_S = 30.0  # of a connection; what is being answered then has GRACE_S more
GRACE_S = 15.0
HEAD_S = 10.0  # until the first request is whole
HANDSHAKE_S = 10.0
MAX_CONNECTIONS = 512
MAX_BY_ADDRESS = 32  # of one client, where it is no proxy that all come by
MAX_HEAD = 16 * 1024  # octets of a request's head
DRAIN_S = 5.0

_log = log.get("web")


class WebListener:
    """contexts: of TLS, asked for each connection; None: in clear, for a proxy in front that has TLS."""

    def __init__(
        self, app: Callable[..., Any], contexts: Callable[[], ssl.SSLContext] | None, sockets: list[socket.socket]
    ) -> None:
        self._config = uvicorn.Config(
            app,
            http=H11Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD,
            timeout_keep_alive=5,
        )
        self._config.load()
        self._state = ServerState()
        self._contexts = contexts
        self._by_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptors = [Acceptor(listening, self._on_connection) for listening in sockets]

    def _on_connection(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        address = client_key("web", peer[0])
        limit = MAX_CONNECTIONS if self._contexts is None else MAX_BY_ADDRESS
        if len(self._tasks) >= MAX_CONNECTIONS or self._by_address[address] >= limit:
            connection.close()
            return
        self._by_address[address] += 1
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, address))

    def _ended(self, task: asyncio.Task[None], address: str) -> None:
        self._tasks.discard(task)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("connection failed", exc_info=error)

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        context = None if self._contexts is None else self._contexts()
        protocol = _Protocol(config=self._config, server_state=self._state, app_state={})
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S if context is not None else None,
            )
        except (OSError, ssl.SSLError):
            connection.close()
            return
        await protocol.wait(HEAD_S)
        if not protocol.has_asked:
            transport.abort()
        await protocol.wait(LIFETIME_S)
        if not protocol.has_ended:
            protocol.shutdown()
            await protocol.wait(GRACE_S)
            transport.abort()

    async def drain(self) -> None:
        """What is being answered may finish."""
        for acceptor in self._acceptors:
            acceptor.stop()
        for protocol in list(self._state.connections):
            protocol.shutdown()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)


class _Protocol(H11Protocol):
    """Tells when its connection has ended."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._ended = asyncio.Event()

    @property
    def has_asked(self) -> bool:
        """Has a whole request come?"""
        return self.cycle is not None

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def wait(self, seconds: float) -> None:
        """For its end, so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended.set()
