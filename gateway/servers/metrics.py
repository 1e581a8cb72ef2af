"""/metrics, /healthz and /readyz over HTTP/1.1, read-only, one answer a connection. The console will be elsewhere."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from gateway.net.listener import Acceptor
from gateway.telemetry import log

MAX_REQUEST = 8192
DEADLINE_S = 10.0
MAX_CONNECTIONS = 32

Page = Callable[[], Awaitable[tuple[int, str, bytes]]]
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 400: "Bad Request", 503: "Service Unavailable"}
_log = log.get("metrics")


class MetricsServer:
    """pages: path to a page that gives status, content type and body."""

    def __init__(self, pages: dict[str, Page], sockets: list[socket.socket]) -> None:
        self._pages = pages
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptors = [Acceptor(listening, self._on_connection) for listening in sockets]

    def _on_connection(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_REQUEST)
        try:
            async with asyncio.timeout(DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, content_type, body = await self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                )
                if not head.startswith(b"HEAD "):
                    writer.write(body)
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # a client that does not finish its request gets no answer
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> tuple[int, str, bytes]:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3:
            return 400, "text/plain", b"bad request\n"
        if words[0] not in (b"GET", b"HEAD"):
            return 405, "text/plain", b"GET only\n"
        page = self._pages.get(words[1].split(b"?")[0].decode("latin-1"))
        if page is None:
            return 404, "text/plain", b"/metrics, /healthz and /readyz are here\n"
        try:
            return await page()
        except Exception as error:
            _log.error("page failed", exc_info=error)
            return 503, "text/plain", b"not available\n"

    async def drain(self) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()
