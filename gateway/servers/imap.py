"""The driver of IMAP: sockets, TLS, sign-in and IDLE for `imap.session`."""

import asyncio
import contextlib
import socket
import tempfile
from base64 import b64encode
from binascii import a2b_base64
from io import BytesIO
from typing import BinaryIO

from gateway.core.ident import new_id
from gateway.imap.command import Authenticate, Id, Login, Simple, Tagged
from gateway.imap.parser import parse_command
from gateway.imap.session import ID_RESPONSE, ImapSession
from gateway.imap.syntax import TAG, BadCharset, BadCommand
from gateway.imap.wire import Bounds, CommandReader, Continue, Event, RawCommand, Refused
from gateway.servers.imap_account import StoreAccount
from gateway.servers.login import LockedOut, SignedIn
from gateway.servers.store_listener import HANDSHAKE_S, StoreServer
from gateway.servers.watching import Waiter
from gateway.smtp.sasl import MECHANISMS, Credentials, SaslError
from gateway.telemetry import log

SIGN_IN_S = 120.0
IDLE_S = 1800.0  # RFC 3501 5.4: at least half an hour
WRITE_S = 120.0
STILL_HERE_S = 120.0  # silence in which boxes between forget a connection
MAX_ERRORS = 20
LINE, LINE_BEFORE = 256 * 1024, 8 * 1024  # octets; the second before sign-in
LITERAL, LITERAL_BEFORE = 256 * 1024, 4 * 1024
IN_MEMORY = 512 * 1024  # octets of a message that is appended; a larger one is in a file as it comes
READ_SIZE = 64 * 1024

_BEFORE = "IMAP4rev1 LITERAL+ SASL-IR ID"
_log = log.get("imap")


async def serve_imap(
    server: StoreServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str, *, is_tls: bool
) -> None:
    """One session; is_tls: from the first octet."""
    dialogue = ImapDialogue(server, reader, writer, ip, is_tls=is_tls)
    try:
        await dialogue.run()
    except (OSError, EOFError, TimeoutError):
        raise
    except asyncio.CancelledError:
        writer.write(b"* BYE The server stops\r\n")
        raise
    except Exception:
        writer.write(b"* BYE [SERVERBUG] Internal error\r\n")
        raise


class ImapDialogue:
    def __init__(
        self, server: StoreServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str, *, is_tls: bool
    ) -> None:
        self._server = server
        self._reader, self._writer = reader, writer
        self._ip = ip
        self._is_tls = is_tls
        self._id = new_id()
        self._commands = CommandReader(Bounds(LINE_BEFORE, lambda _: LITERAL_BEFORE))
        self._session: ImapSession | None = None
        self._account: StoreAccount | None = None
        self._errors = 0
        self._is_over = False

    async def run(self) -> None:
        await self.send(f"* OK [CAPABILITY {self._capabilities()}] {self._server.settings.hostname} ready\r\n".encode())
        while not self._is_over:
            match await self._event(SIGN_IN_S if self._session is None else IDLE_S):
                case None:
                    return
                case Continue():
                    await self.send(b"+ Go on\r\n")
                case Refused() as refused:
                    await self._refuse(refused)
                case RawCommand() as raw:
                    await self._take(raw)
            if self._errors > MAX_ERRORS:
                await self._bye("Too many errors")

    def _capabilities(self) -> str:
        if self._session is not None:
            return self._session.capabilities
        return f"{_BEFORE} AUTH=PLAIN AUTH=LOGIN" if self._is_tls else f"{_BEFORE} STARTTLS LOGINDISABLED"

    # --- in and out -----------------------------------------------------------------------------------------------

    async def _event(self, seconds: float) -> RawCommand | Continue | Refused | None:
        """None: the client is gone, or was silent for too long."""
        while (event := self._commands.next()) is None:
            if self._commands.has_input:
                self._acknowledge()
            try:
                async with asyncio.timeout(seconds):
                    octets = await self._reader.read(READ_SIZE)
            except TimeoutError:
                await self._bye("Nothing was said for too long")
                return None
            if not octets:
                return None
            self._commands.feed(octets)
        return event

    def _acknowledge(self) -> None:
        """At once what there is of a command: clients that write a literal and its line end apart wait for that, and
        the kernel lets them wait for 40 ms.
        """
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def send(self, octets: bytes) -> None:
        if not octets:
            return
        self._writer.write(octets)
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()

    async def _answer(self, tag: str, text: str) -> None:
        await self.send(f"{tag} {text}\r\n".encode("ascii", "replace"))

    async def _bye(self, reason: str) -> None:
        self._is_over = True
        with contextlib.suppress(OSError, TimeoutError):
            await self._answer("*", f"BYE {reason}")

    async def _refuse(self, refused: Refused) -> None:
        self._errors += 1
        match = TAG.match(refused.start)
        tag = match[0].decode("ascii") if match is not None else "*"
        what = "literal" if refused.is_literal else "line"
        if refused.is_fatal:
            await self._bye(f"The {what} is too long")
        elif self._session is not None:
            await self._answer(tag, f"NO [TOOBIG] The {what} is too long")
        else:
            await self._answer(tag, f"BAD The {what} is too long")

    # --- commands -------------------------------------------------------------------------------------------------

    async def _take(self, raw: RawCommand) -> None:
        session = self._session
        try:
            tagged = parse_command(raw, is_utf8=session is not None and session.is_utf8)
        except BadCharset as error:
            await self._answer(error.tag, f"NO [BADCHARSET (US-ASCII UTF-8)] {error}")
            return
        except BadCommand as error:
            self._errors += 1
            await self._answer(error.tag or "*", f"BAD {error}")
            return
        try:
            await self._run(tagged)
        finally:
            for literal in raw.literals:
                literal.file.close()

    async def _run(self, tagged: Tagged) -> None:
        tag, session = tagged.tag, self._session
        match tagged.command:
            case Simple(verb="CAPABILITY"):
                await self.send(f"* CAPABILITY {self._capabilities()}\r\n".encode())
                await self._answer(tag, "OK Done")
            case Simple(verb="LOGOUT"):
                await self._bye("Good-bye")
                await self._answer(tag, "OK Signed out")
            case Simple(verb="STARTTLS"):
                await self._start_tls(tag)
            case Simple(verb="IDLE") if session is not None:
                await self._idle(tag, session)
            case Login() | Authenticate() as command:
                await self._sign_in(tag, command)
            case Id() if session is None:
                await self.send(ID_RESPONSE)
                await self._answer(tag, "OK Done")
            case Simple(verb="NOOP") if session is None:
                await self._answer(tag, "OK Done")
            case _ if session is None:
                self._errors += 1
                await self._answer(tag, "BAD Sign in first")
            case _:
                await session.run(tagged)
                self._is_over = session.is_over

    async def _start_tls(self, tag: str) -> None:
        if self._is_tls or self._session is not None:
            await self._answer(tag, "BAD TLS is active already")
            return
        if self._commands.has_input or self._reader._buffer:  # type: ignore[attr-defined]  # no public way to see
            await self._bye("Commands must not follow STARTTLS before the handshake")
            return
        await self._answer(tag, "OK Begin TLS negotiation")
        await self._writer.start_tls(self._server.tls_context(), ssl_handshake_timeout=HANDSHAKE_S)
        self._is_tls = True

    # --- sign-in --------------------------------------------------------------------------------------------------

    async def _sign_in(self, tag: str, command: Login | Authenticate) -> None:
        if self._session is not None:
            await self._answer(tag, "BAD You are signed in already")
            return
        if not self._is_tls:
            self._errors += 1
            await self._answer(tag, "NO [PRIVACYREQUIRED] TLS first: STARTTLS")
            return
        if isinstance(command, Login):
            credentials: Credentials | None = Credentials(command.user, command.password)
        else:
            credentials = await self._authenticate(tag, command)
        if credentials is not None:
            await self._check(tag, credentials)

    async def _authenticate(self, tag: str, command: Authenticate) -> Credentials | None:
        """None: it came to nothing, and the client was told."""
        mechanism = MECHANISMS.get(command.mechanism.upper())
        if mechanism is None:
            await self._answer(tag, "NO There is PLAIN and LOGIN")
            return None
        exchange = mechanism()
        challenge, initial = next(exchange), command.initial
        try:
            while True:
                response = await self._response(challenge) if initial is None else _decoded(initial)
                initial = None
                challenge = exchange.send(response)
        except StopIteration as stop:
            found: Credentials = stop.value
            return found
        except ValueError as error:
            self._errors += 1
            await self._answer(tag, f"BAD {error}")
            return None

    async def _response(self, challenge: bytes) -> bytes:
        """Raises SaslError when the client gives up (RFC 3501 6.2.2)."""
        await self.send(b"+ " + b64encode(challenge) + b"\r\n")
        raw = await self._event(SIGN_IN_S)
        if raw is None:
            raise EOFError("gone while it signed in")
        if not isinstance(raw, RawCommand) or raw.literals:
            raise SaslError("a line in base64 is wanted")
        if raw.texts[0] == b"*":
            raise SaslError("given up")
        return _decoded(raw.texts[0])

    async def _check(self, tag: str, credentials: Credentials) -> None:
        server = self._server
        result = await server.login.check(credentials.user, credentials.password, self._ip)
        if not isinstance(result, SignedIn):
            is_locked = isinstance(result, LockedOut)
            self._errors += 5
            server.metrics.auth_attempts.labels("imap", "locked" if is_locked else "failure").inc()
            _log.warning("sign-in failed", session=self._id, client=self._ip, user=credentials.user, locked=is_locked)
            reason = (
                "[UNAVAILABLE] Too many failed sign-ins, try again later"
                if is_locked
                else ("[AUTHENTICATIONFAILED] Wrong user or password")
            )
            await self._answer(tag, f"NO {reason}")
            return
        server.metrics.auth_attempts.labels("imap", "success").inc()
        self._account = StoreAccount(server, result.account)
        self._session = ImapSession(self._account, self, server.settings.append_limit)
        self._commands.bounds = Bounds(LINE, self._literal_bound)
        self._commands.new_file = self._new_file
        await self._answer(tag, f"OK [CAPABILITY {self._capabilities()}] Signed in")

    def _literal_bound(self, start: bytes) -> int:
        """Of a command that begins so."""
        _, _, rest = start.partition(b" ")
        return self._server.settings.append_limit if rest[:7].upper() == b"APPEND " else LITERAL

    def _new_file(self, size: int) -> BinaryIO:
        if size <= IN_MEMORY:
            return BytesIO()
        return tempfile.TemporaryFile(dir=self._server.settings.temporary)

    # --- IDLE -----------------------------------------------------------------------------------------------------

    async def _idle(self, tag: str, session: ImapSession) -> None:
        """RFC 2177: what others do is told as it happens, until DONE."""
        await self.send(b"+ Idling\r\n")
        with self._waiting(session) as waiter:
            event = await self._after_news(session, waiter)
        if event is None:
            return
        if isinstance(event, RawCommand) and len(event.texts) == 1 and event.texts[0].strip().upper() == b"DONE":
            await session.idle_news()
            await self._answer(tag, "OK Idled")
        else:
            self._errors += 1
            await self._answer(tag, "BAD DONE was wanted")

    def _waiting(self, session: ImapSession) -> contextlib.AbstractContextManager[Waiter]:
        if self._account is None or session.box is None:  # nothing can happen
            return contextlib.nullcontext(Waiter())
        return self._account.waiting(session.box)

    async def _after_news(self, session: ImapSession, waiter: Waiter) -> Event | None:
        """What the client says, once it says anything. None: the session is over."""
        loop = asyncio.get_running_loop()
        ends, still_here = loop.time() + IDLE_S, loop.time() + STILL_HERE_S
        while (event := self._commands.next()) is None:
            now = loop.time()
            if waiter.takes_news():
                await session.idle_news()
                if session.is_over:
                    self._is_over = True
                    return None
            elif now >= ends:
                await self._bye("Idle for too long")
                return None
            elif now >= still_here:
                still_here = now + STILL_HERE_S
                await self.send(b"* OK Still here\r\n")
            else:
                octets = await waiter.until(self._reader.read(READ_SIZE), min(ends, still_here) - now)
                if octets == b"":
                    raise EOFError("gone while it idled")
                self._commands.feed(octets or b"")
        return event


def _decoded(octets: bytes) -> bytes:
    """Of SASL: an empty response is written "=" (RFC 4959). Raises ValueError."""
    return b"" if octets == b"=" else a2b_base64(octets, strict_mode=True)
