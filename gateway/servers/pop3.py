"""The driver of POP3: what `pop3.session` asks for, by sockets, passwords and the store."""

import asyncio
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterator

from gateway.core.ident import new_id
from gateway.mailbox.values import StoredMessage
from gateway.pop3.session import (
    MAX_LINE,
    Action,
    Authenticate,
    Finish,
    Item,
    Pop3Session,
    Retrieve,
    Say,
    SignIn,
    StartTls,
    TopFilter,
)
from gateway.servers.login import LockedOut, SignedIn
from gateway.servers.store_listener import HANDSHAKE_S, StoreServer
from gateway.smtp.client import stuff_dots
from gateway.smtp.sasl import MECHANISMS, SaslError
from gateway.telemetry import log

SILENT_S = 60.0
IDLE_S = 600.0  # RFC 1939 3: at least ten minutes
WRITE_S = 120.0
READ_SIZE = 128 * 1024

_log = log.get("pop3")


class Pop3Service:
    """Serves sessions, as a listener wants it."""

    def __init__(self) -> None:
        self._drops = MailDrops()

    async def __call__(
        self, server: StoreServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str, *, is_tls: bool
    ) -> None:
        """is_tls: from the first octet."""
        session = Pop3Session(server.settings.hostname, is_tls=is_tls, can_start_tls=not is_tls)
        try:
            await _Dialogue(server, session, reader, writer, ip, self._drops).run()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            raise
        except Exception:
            writer.write(b"-ERR [SYS/TEMP] local error\r\n")
            raise


class MailDrops:
    """Who has which maildrop: one session at a time (RFC 1939 4). One that has been silent for a minute gives way, so
    that a client whose connection was lost need not wait for it.
    """

    def __init__(self) -> None:
        self._holders: dict[str, _Dialogue] = {}

    def take(self, account: str, dialogue: "_Dialogue") -> bool:
        holder = self._holders.get(account)
        if holder is not None:
            if asyncio.get_running_loop().time() - holder.heard < SILENT_S:
                return False
            holder.end()
        self._holders[account] = dialogue
        return True

    def release(self, account: str, dialogue: "_Dialogue") -> None:
        if self._holders.get(account) is dialogue:
            del self._holders[account]


class _Dialogue:
    def __init__(
        self,
        server: StoreServer,
        session: Pop3Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ip: str,
        drops: "MailDrops",
    ) -> None:
        self._server = server
        self._session = session
        self._reader, self._writer = reader, writer
        self._ip = ip
        self._id = new_id()
        self._account = ""
        self._drops = drops
        self.heard = asyncio.get_running_loop().time()
        self._messages: dict[int, StoredMessage] = {}

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            self._drops.release(self._account, self)

    async def _run(self) -> None:
        await self._send(self._session.greeting())
        while not self._session.is_hopeless:
            async with asyncio.timeout(IDLE_S):
                line = await self._reader.readuntil(b"\n")
            self.heard = asyncio.get_running_loop().time()
            if len(line) > MAX_LINE:
                await self._send(b"-ERR line too long\r\n")
                return
            action = self._session.command(line.rstrip(b"\r\n"))
            if not await self._act(action):
                return
        await self._send(b"-ERR too many errors\r\n")

    def end(self) -> None:
        """Another session takes over: nothing that was marked is deleted."""
        self._writer.transport.abort()

    async def _act(self, action: Action) -> bool:
        """False when the session is over."""
        match action:
            case Say(octets=octets):
                await self._send(octets)
            case StartTls(octets=octets):
                return await self._start_tls(octets)
            case SignIn(user=user, password=password):
                await self._sign_in(user, password)
            case Authenticate(mechanism=mechanism, initial=initial):
                await self._authenticate(mechanism, initial)
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

    async def _authenticate(self, mechanism: str, initial: str | None) -> None:
        exchange = MECHANISMS[mechanism]()
        challenge, response = next(exchange), initial
        try:
            while True:
                if response is None:
                    await self._send(b"+ " + b64encode(challenge) + b"\r\n")
                    async with asyncio.timeout(IDLE_S):
                        response = (await self._reader.readuntil(b"\n")).decode("ascii").rstrip("\r\n")
                    if response == "*":
                        raise SaslError("given up")
                octets = b"" if response == "=" else a2b_base64(response, strict_mode=True)
                challenge, response = exchange.send(octets), None
        except StopIteration as stop:
            await self._sign_in(stop.value.user, stop.value.password)
        except ValueError as error:
            await self._send(self._session.authentication_failed(str(error)).octets)

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
        if not self._drops.take(result.account, self):
            await self._send(self._session.in_use().octets)
            return
        self._account = result.account
        validity, messages = await self._server.in_turn(
            self._account, lambda: self._server.store.snapshot(self._account)
        )
        self._messages = {message.uid: message for message in messages}
        items = [Item(message.uid, message.size) for message in messages]
        await self._send(self._session.signed_in(validity, items).octets)

    async def _retrieve(self, action: Retrieve) -> None:
        message = self._messages[action.item.uid]
        try:
            file = await self._server.in_pool(lambda: self._server.store.reading.open_message(self._account, message))
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
                count = await self._server.in_turn(
                    self._account, lambda: self._server.store.expunge(self._account, list(uids))
                )
            except Exception as error:
                _log.error("pop3 delete failed", session=self._id, account=self._account, exc_info=error)
                await self._send(b"-ERR [SYS/TEMP] some messages were not deleted\r\n")
                return
            self._server.metrics.store_messages.labels("pop3", "delete").inc(count)
        self._drops.release(self._account, self)  # who hears good-bye may come again at once
        await self._send(octets)

    async def _send(self, octets: bytes) -> None:
        self._writer.write(octets)
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()
        self.heard = asyncio.get_running_loop().time()


def _pieces(read: Callable[[int], bytes], top: TopFilter | None) -> Iterator[bytes]:
    while octets := read(READ_SIZE):
        yield octets if top is None else top.feed(octets)
        if top is not None and top.is_done:
            return
