"""The driver of POP3: sockets, TLS, passwords and the store for `pop3.session`."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from gateway.core.ident import new_id
from gateway.core.ports import Counters, client_key
from gateway.mailbox.index import StoredMessage
from gateway.mailbox.store import MessageStore
from gateway.net.listener import Acceptor
from gateway.pop3.session import (
    MAX_LINE,
    Action,
    Finish,
    Item,
    Pop3Session,
    Retrieve,
    Say,
    SignIn,
    StartTls,
    TopFilter,
)
from gateway.servers.login import LockedOut, LoginGuard, SignedIn
from gateway.smtp.client import stuff_dots
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics

IDLE_S = 600.0  # RFC 1939 3: at least ten minutes
WRITE_S = 120.0
HANDSHAKE_S = 30.0
READ_SIZE = 128 * 1024

T = TypeVar("T")
_log = log.get("pop3")


@dataclass(frozen=True, slots=True)
class Pop3Settings:
    hostname: str
    connections: int = 1000
    connections_by_address: int = 100


class Pop3Listener:
    """name: "pop3" (STLS) or "pop3s" (implicit TLS)."""

    def __init__(
        self,
        name: str,
        settings: Pop3Settings,
        store: MessageStore,
        login: LoginGuard,
        counters: Counters,
        metrics: Metrics,
        tls: Callable[[], ssl.SSLContext],
        sockets: list[socket.socket],
    ) -> None:
        self._name = name
        self._settings = settings
        self._store = store
        self._login = login
        self._counters = counters
        self._metrics = metrics
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="maildrop")
        self._acceptors = [Acceptor(listening, self._on_connection) for listening in sockets]

    def _on_connection(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection, peer[0]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, ip: str) -> None:
        settings, labels = self._settings, self._name
        by_address = client_key("pop3", ip)
        limits = ("pop3", settings.connections), (by_address, settings.connections_by_address)
        full = self._counters.acquire(*limits)
        if full is not None:
            reason = "over_address_limit" if full == by_address else "over_limit"
            self._metrics.connections.labels(labels, reason).inc()
            connection.close()
            return
        try:
            self._metrics.connections.labels(labels, "accepted").inc()
            with self._metrics.sessions_open.labels(labels).track_inprogress():
                await self._converse(connection, ip)
        finally:
            self._counters.release("pop3", by_address)

    async def _converse(self, connection: socket.socket, ip: str) -> None:
        implicit = self._name == "pop3s"
        writer: asyncio.StreamWriter | None = None
        try:
            context = self._tls() if implicit else None
            reader, writer = await _streams(connection, context)
            session = Pop3Session(self._settings.hostname, is_tls=implicit, can_start_tls=not implicit)
            await _Dialogue(self, session, reader, writer, ip).run()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            _log.info("pop3 session ended", client=ip, reason=str(error) or type(error).__name__)
        except Exception as error:
            _log.error("pop3 session failed", client=ip, exc_info=error)
            if writer is not None:
                writer.write(b"-ERR [SYS/TEMP] local error\r\n")
        finally:
            if writer is not None:
                writer.close()
            else:
                connection.close()

    # --- what a dialogue asks for ---------------------------------------------------------------------------------

    async def in_pool(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    @property
    def store(self) -> MessageStore:
        return self._store

    @property
    def login(self) -> LoginGuard:
        return self._login

    @property
    def metrics(self) -> Metrics:
        return self._metrics

    def tls_context(self) -> ssl.SSLContext:
        return self._tls()

    async def drain(self) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()
        for task in list(self._tasks):
            task.cancel()  # nothing is deleted before QUIT, so any session may end here
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)


class _Dialogue:
    def __init__(
        self,
        server: Pop3Listener,
        session: Pop3Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ip: str,
    ) -> None:
        self._server = server
        self._session = session
        self._reader, self._writer = reader, writer
        self._ip = ip
        self._id = new_id()
        self._account = ""
        self._messages: dict[int, StoredMessage] = {}

    async def run(self) -> None:
        await self._send(self._session.greeting())
        while not self._session.is_hopeless:
            async with asyncio.timeout(IDLE_S):
                line = await self._reader.readuntil(b"\n")
            if len(line) > MAX_LINE:
                await self._send(b"-ERR line too long\r\n")
                return
            action = self._session.command(line.rstrip(b"\r\n"))
            if not await self._act(action):
                return
        await self._send(b"-ERR too many errors\r\n")

    async def _act(self, action: Action) -> bool:
        """False when the session is over."""
        match action:
            case Say(octets=octets):
                await self._send(octets)
            case StartTls(octets=octets):
                return await self._start_tls(octets)
            case SignIn(user=user, password=password):
                await self._sign_in(user, password)
            case Retrieve():
                await self._retrieve(action)
            case Finish(uids=uids, octets=octets):
                await self._finish(uids, octets)
                return False
        return True

    async def _start_tls(self, octets: bytes) -> bool:
        if self._reader._buffer:  # type: ignore[attr-defined]  # no public way to see what came behind STLS
            await self._send(b"-ERR commands must not follow STLS before the handshake\r\n")
            return False
        await self._send(octets)
        await self._writer.start_tls(self._server.tls_context(), ssl_handshake_timeout=HANDSHAKE_S)
        self._session.secured()
        return True

    async def _sign_in(self, user: str, password: str) -> None:
        result = await self._server.login.check(user, password, self._ip)
        labels = "success" if isinstance(result, SignedIn) else "failure"
        if not isinstance(result, SignedIn):
            is_locked = isinstance(result, LockedOut)
            self._server.metrics.auth_attempts.labels("pop3", "locked" if is_locked else labels).inc()
            _log.warning("sign-in failed", session=self._id, client=self._ip, user=user, locked=is_locked)
            await self._send(self._session.not_signed_in(is_locked=is_locked).octets)
            return
        self._server.metrics.auth_attempts.labels("pop3", labels).inc()
        self._account = result.account
        validity, messages = await self._server.in_pool(lambda: self._server.store.snapshot(self._account))
        self._messages = {message.uid: message for message in messages}
        items = [Item(message.uid, message.size) for message in messages]
        await self._send(self._session.signed_in(validity, items).octets)

    async def _retrieve(self, action: Retrieve) -> None:
        message = self._messages[action.item.uid]
        try:
            file = await self._server.in_pool(lambda: self._server.store.open_message(self._account, message))
        except FileNotFoundError:
            await self._send(b"-ERR [SYS/TEMP] the message is gone\r\n")
            return
        with file:
            self._writer.write(action.first)
            top = None if action.lines is None else TopFilter(action.lines)
            pieces = _pieces(file.read, top)
            stuffed = stuff_dots(pieces)
            while (octets := await self._server.in_pool(lambda: next(stuffed, b""))) != b"":
                await self._send(octets)
        self._server.metrics.store_messages.labels("pop3", "retrieve").inc()

    async def _finish(self, uids: tuple[int, ...], octets: bytes) -> None:
        if uids:
            try:
                count = await self._server.in_pool(lambda: self._server.store.expunge(self._account, list(uids)))
            except Exception as error:
                _log.error("pop3 delete failed", session=self._id, account=self._account, exc_info=error)
                await self._send(b"-ERR [SYS/TEMP] some messages were not deleted\r\n")
                return
            self._server.metrics.store_messages.labels("pop3", "delete").inc(count)
        await self._send(octets)

    async def _send(self, octets: bytes) -> None:
        self._writer.write(octets)
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()


def _pieces(read: Callable[[int], bytes], top: TopFilter | None) -> Iterator[bytes]:
    while octets := read(READ_SIZE):
        yield octets if top is None else top.feed(octets)
        if top is not None and top.is_done:
            return


async def _streams(
    connection: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over an accepted socket. A client callback marks the protocol as a server's, which start_tls looks at."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=8192)
    made: asyncio.Future[asyncio.StreamWriter] = loop.create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.set_result(writer)

    protocol = asyncio.StreamReaderProtocol(reader, connected)
    await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_S if context else None
    )
    return reader, await made
