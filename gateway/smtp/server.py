"""One SMTP connection: the dialogue of RFC 5321, with its extensions, on top of aiosmtpd's SMTP class.

The subclass keeps aiosmtpd's place in asyncio and its dispatch by `smtp_VERB` methods, and replaces what
docs/decisions/0002-aiosmtpd.md lists: the loop, the grammar, the replies, DATA, AUTH, STARTTLS and all limits.
It decides nothing about mail: a Handler (see `servers.smtp`) judges and stores. It neither logs nor counts.

Order of replies is the order of commands; replies wait until the client's pipelined input is used up (RFC 2920 3.2).
"""

import asyncio
import re
import ssl
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, cast

from aiosmtpd.smtp import SMTP

from gateway.core.reply import Reply, reply
from gateway.core.transaction import Envelope, Recipient, Session, Tls
from gateway.smtp import replies
from gateway.smtp.data import ContentFacts, ContentScanner, DataDecoder, LineEndRepair
from gateway.smtp.grammar import GrammarError, MailArguments, RcptArguments, parse_helo, parse_mail, parse_rcpt
from gateway.smtp.sasl import MECHANISMS, Credentials, SaslError
from gateway.smtp.xclient import XclientError, parse_xclient

READ_SIZE = 128 * 1024
MAX_COMMAND = 2048  # octets with CRLF: 512 (RFC 5321 4.5.3.1.4) and room for SIZE, SMTPUTF8, DSN, ORCPT
MAX_AUTH_LINE = 12288  # RFC 4954 4
LINGER_S = 2.0  # after a refusal in mid-stream: read on that long, so that the reply is not lost to a reset
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")  # has no place in a command; octets over 127 are the grammar's matter
DRAIN_FACTOR = 2  # an oversize message is read to its end up to so many times the limit


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of one session; sizes in octets, times in seconds."""

    hostname: str = "localhost"
    size: int = 50 * 1024 * 1024
    line: int = 8192
    recipients: int = 100
    commands: int = 2000
    errors: int = 20
    messages: int = 1000
    idle_s: float = 300.0
    data_s: float = 1800.0


class Content(Protocol):
    """Where the octets of one message go. Nothing is kept until the handler's `message` says so."""

    async def write(self, octets: bytes) -> None:
        """Raises StorageFull when there is no room."""

    def discard(self) -> None: ...


class Handler(Protocol):
    """What a connection asks of its driver. None as an answer to connected, helo and mail means: no objection."""

    async def connected(self, session: Session) -> Reply | None: ...
    async def helo(self, session: Session) -> Reply | None: ...
    async def authenticate(self, session: Session, method: str, credentials: Credentials) -> Session | Reply: ...
    async def impersonate(self, session: Session, ip: str, port: int | None, name: str | None) -> Session: ...
    async def mail(self, session: Session, arguments: MailArguments) -> Reply | None: ...
    async def rcpt(self, session: Session, envelope: Envelope, arguments: RcptArguments) -> Recipient | Reply: ...
    def reset(self) -> None: ...
    def content(self) -> Content: ...
    async def message(self, session: Session, envelope: Envelope, content: Content, facts: ContentFacts) -> Reply: ...
    def failed(self, session: Session, verb: str, error: Exception) -> Reply: ...
    def refused(self, session: Session, verb: str, answer: Reply) -> Reply:
        """A limit, a guard or a breach of protocol refused `verb`; the answer may be given a decision id."""

    def closed(self, session: Session) -> None: ...


class SmtpServer(SMTP):
    """One connection. `run` is the whole dialogue; asyncio calls the rest."""

    def __init__(
        self,
        handler: Handler,
        session: Session,
        settings: ServerSettings,
        *,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
        repair_line_ends: bool = False,
        xclient: bool = False,
        offer_auth: bool = True,
        on_done: Callable[["SmtpServer"], None] | None = None,
    ) -> None:
        # SMTP.__init__ costs 137 us (inspect over both objects) and sets a class-wide table of limits: not called.
        loop = asyncio.get_running_loop()
        super(SMTP, self).__init__(
            asyncio.StreamReader(limit=READ_SIZE, loop=loop), client_connected_cb=self._cb_client_connected, loop=loop
        )
        self.loop = loop
        self.handler = handler
        self.session: Session = session  # type: ignore[assignment]  # ours, frozen, in the place of aiosmtpd's
        self.settings = settings
        self.transport: asyncio.Transport | None = None
        self._new_tls_context = tls_context
        self._repair = repair_line_ends
        self._xclient = xclient
        self._offer_auth = offer_auth
        self._on_done = on_done
        self._input = b""
        self._output: list[bytes] = []
        self._envelope: Envelope | None = None
        self._content: Content | None = None  # of a BDAT sequence in progress
        self._scanner = ContentScanner(settings.line)
        self._verb = ""
        self._commands = self._errors = self._messages = 0
        self._closing = self._draining = False
        self._lingering = False  # the peer may still be sending when we close
        self._waiting_since: float | None = None  # when we began to wait for the peer
        self._data_deadline: float | None = None
        self._watch_handle: asyncio.TimerHandle | None = None
        self._handler_coroutine: asyncio.Task[None] | None = None

    # --- asyncio's side -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super(SMTP, self).connection_made(transport)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.session = replace(self.session, tls=_tls_of(tls))
        self._watch_handle = self.loop.call_later(self.settings.idle_s, self._watch)
        self._handler_coroutine = self.loop.create_task(self.run())

    def connection_lost(self, error: Exception | None) -> None:
        # The dialogue is not cancelled: what the client has sent whole is judged and stored (a client may send the
        # dot and go). It ends by itself at the next read.
        super(SMTP, self).connection_lost(error)
        self.transport = None

    def eof_received(self) -> bool | None:
        keep_open: bool | None = super(SMTP, self).eof_received()
        return keep_open

    def drain(self) -> None:
        """Shut down gently: 421 at the next command, at once if none is under way."""
        self._draining = True
        if self._waiting_since is not None and self._data_deadline is None:
            self._hang_up(replies.shutting_down(self.settings.hostname))

    def _watch(self) -> None:
        """The one timer of a connection: idleness counts only while we wait for the peer."""
        now = self.loop.time()
        if self._data_deadline is not None and now >= self._data_deadline:
            self._hang_up(replies.data_timeout(self.settings.hostname))
            return
        since = self._waiting_since if self._waiting_since is not None else now
        if now - since >= self.settings.idle_s:
            self._hang_up(replies.idle_timeout(self.settings.hostname))
            return
        due = since + self.settings.idle_s
        if self._data_deadline is not None:
            due = min(due, self._data_deadline)
        self._watch_handle = self.loop.call_at(max(due, now + 0.01), self._watch)

    def _hang_up(self, answer: Reply) -> None:
        self._closing = True
        if self.transport is not None:
            answer = self.handler.refused(self.session, self._verb or "idle", answer)
            self.transport.write(answer.render())
            self.transport.close()
            # A peer that does not read keeps a closing transport alive: cut it after a while.
            self.loop.call_later(LINGER_S, self.transport.abort)

    # --- the dialogue ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            await self._greet()
            while not self._closing:
                line = await self._read_line(MAX_COMMAND)
                if line is None:
                    break
                await self._command(line)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass  # the peer is gone; there is nobody to tell
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._content is not None:
            self._content.discard()
        if self._watch_handle is not None:
            self._watch_handle.cancel()
        with suppress(ConnectionError, TimeoutError, ssl.SSLError):
            await self._flush()
            if self._lingering:
                await self._linger()
        if self.transport is not None:
            self.transport.close()
        self.handler.closed(self.session)
        if self._on_done is not None:
            self._on_done(self)

    async def _linger(self) -> None:
        """Read on for a moment after a refusal: unread input would turn the close into a reset and lose the reply."""
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()
        async with asyncio.timeout(LINGER_S):
            while await self._reader.read(READ_SIZE):
                pass

    async def _greet(self) -> None:
        refusal = await self._guarded("connect", self.handler.connected(self.session))
        if refusal is not None:
            self._push(refusal)
            self._closing = self._lingering = True
            return
        self._push(Reply(220, "", (f"{self.settings.hostname} ESMTP Smarthost",)))
        if self._input == b"":
            await self._flush()

    async def _command(self, line: bytes) -> None:
        verb_octets, _, argument_octets = line.partition(b" ")
        name = _VERBS.get(verb_octets.upper())
        self._verb = name or "?"
        self._commands += 1
        if self._draining:
            self._refuse_and_close(replies.shutting_down(self.settings.hostname))
            return
        if self._commands > self.settings.commands:
            self._refuse_and_close(replies.TOO_MANY_COMMANDS)
            return
        if name is None:
            if verb_octets.upper() in _OTHER_PROTOCOLS:
                self._refuse_and_close(replies.NOT_SMTP)
            else:
                self._refuse(replies.UNKNOWN_COMMAND)
            return
        if _CONTROL.search(line):
            self._refuse(replies.BAD_CHARACTER)
            return
        if self._content is not None and name not in _DURING_BDAT:
            self._refuse(replies.IN_BDAT)
            return
        argument = argument_octets.strip(b" ").decode("utf-8", "surrogateescape")
        try:
            answer: Reply | None = await getattr(self, f"smtp_{name}")(argument)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            raise
        except GrammarError as error:
            answer = error.reply
        except Exception as error:
            self._abandon()
            answer = self.handler.failed(self.session, name, error)
        if answer is None:
            return
        if answer.is_positive:
            self._push(answer)
        elif answer.code == 421:
            self._refuse_and_close(answer)
        else:
            self._refuse(answer)

    def _push(self, answer: Reply) -> None:
        self._output.append(answer.render())

    def _refuse(self, answer: Reply) -> None:
        """Count an error; at the limit the last word is 421 (RFC 5321 4.3.2, the reply of the command comes first)."""
        self._errors += 1
        self._push(self.handler.refused(self.session, self._verb, answer))
        if self._errors >= self.settings.errors:
            self._refuse_and_close(replies.TOO_MANY_ERRORS)

    def _refuse_and_close(self, answer: Reply) -> None:
        self._push(self.handler.refused(self.session, self._verb, answer))
        self._closing = self._lingering = True

    async def _guarded(self, verb: str, call: Awaitable[Reply | None]) -> Reply | None:
        self._verb = verb
        try:
            return await call
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            return replace(self.handler.failed(self.session, verb, error), code=421)

    # --- input and output -----------------------------------------------------------------------------------------

    async def _read(self) -> bytes:
        """Some octets, or b"" at the end. All replies leave before we wait."""
        await self._flush()
        self._waiting_since = self.loop.time()
        try:
            octets: bytes = await self._reader.read(READ_SIZE)
        finally:
            self._waiting_since = None
        return b"" if self._closing else octets

    async def _read_line(self, limit: int) -> bytes | None:
        """One line without its CRLF; None at the end of input or after a line that ended the session."""
        while True:
            end = self._input.find(b"\r\n")
            bare = self._input.find(b"\n", 0, end if end >= 0 else len(self._input))
            if bare >= 0 and (end < 0 or bare < end):
                if not self._repair:
                    self._verb = "?"
                    self._refuse_and_close(replies.BARE_LF_COMMAND)
                    return None
                line, self._input = self._input[:bare], self._input[bare + 1 :]
                return line
            if end >= 0:
                line, self._input = self._input[:end], self._input[end + 2 :]
                if len(line) + 2 <= limit:
                    return line
                self._refuse(replies.LINE_TOO_LONG)
                if self._closing:
                    return None
                continue
            if len(self._input) > max(limit, MAX_AUTH_LINE):
                # No line end within the bound: nothing sane follows.
                self._refuse_and_close(replies.LINE_TOO_LONG)
                return None
            octets = await self._read()
            if not octets:
                return None
            self._input += octets

    async def _flush(self) -> None:
        if not self._output:
            return
        octets, self._output = b"".join(self._output), []
        if self.transport is None or self.transport.is_closing():
            return
        self._writer.write(octets)
        self._waiting_since = self.loop.time()
        try:
            await self._writer.drain()
        finally:
            self._waiting_since = None

    # --- greeting, state ------------------------------------------------------------------------------------------

    async def smtp_HELO(self, argument: str) -> Reply:
        return await self._hello(argument, is_esmtp=False)

    async def smtp_EHLO(self, argument: str) -> Reply:
        return await self._hello(argument, is_esmtp=True)

    async def _hello(self, argument: str, *, is_esmtp: bool) -> Reply:
        name = parse_helo(argument)
        self._reset_transaction()
        self.session = replace(self.session, helo=name, is_esmtp=is_esmtp)
        refusal = await self.handler.helo(self.session)
        if refusal is not None:
            return refusal
        if not is_esmtp:
            return Reply(250, "", (self.settings.hostname,))
        return Reply(250, "", (self.settings.hostname, *self._extensions()))

    def _extensions(self) -> list[str]:
        out = ["PIPELINING", f"SIZE {self.settings.size}"]
        if self._new_tls_context is not None and self.session.tls is None:
            out.append("STARTTLS")
        if self._offer_auth and self.session.tls is not None and self.session.user is None:
            out.append("AUTH " + " ".join(MECHANISMS))
        if self._xclient:
            out.append("XCLIENT NAME ADDR PORT PROTO HELO")
        return [*out, "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN"]

    async def smtp_NOOP(self, argument: str) -> Reply:
        return replies.OK

    async def smtp_RSET(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._reset_transaction()
        return replies.OK

    async def smtp_QUIT(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._closing = True
        return reply(221, "2.0.0", f"{self.settings.hostname} bye")

    async def smtp_VRFY(self, argument: str) -> Reply:
        return replies.VRFY if argument else replies.VRFY_SYNTAX

    async def smtp_EXPN(self, argument: str) -> Reply:
        return replies.NOT_OFFERED

    async def smtp_HELP(self, argument: str) -> Reply:
        return replies.HELP

    def _reset_transaction(self) -> None:
        self._envelope = None
        if self._content is not None:
            self._content.discard()
            self._content = None
        self._scanner = ContentScanner(self.settings.line)
        self.handler.reset()

    def _abandon(self) -> None:
        """After a fault of ours: nothing of the transaction is kept."""
        try:
            self._reset_transaction()
        finally:
            self._envelope = None

    # --- STARTTLS, AUTH, XCLIENT ----------------------------------------------------------------------------------

    async def smtp_STARTTLS(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        if self.session.tls is not None:
            return replies.TLS_ALREADY
        if self._new_tls_context is None:
            return replies.NOT_OFFERED
        if self._input:
            # RFC 3207 6 and CVE-2011-0411: octets behind STARTTLS came in clear and must not be taken for TLS's.
            return replies.TLS_INJECTION
        context = self._new_tls_context()
        self._push(replies.TLS_READY)
        await self._flush()
        if self.transport is None:
            return None
        transport = await self.loop.start_tls(
            self.transport, self, context, server_side=True, ssl_handshake_timeout=30.0
        )
        if transport is None:
            raise ConnectionResetError
        self._adopt(transport)
        self._reset_transaction()
        tls = _tls_of(transport.get_extra_info("ssl_object"))
        # RFC 3207 4.2: what the client said before is forgotten; EHLO comes again.
        self.session = replace(self.session, tls=tls, helo="", is_esmtp=False)
        return None

    def _adopt(self, transport: asyncio.Transport) -> None:
        """Make reader and writer speak through the TLS transport; drop what was read in clear."""
        self.transport = transport
        self._transport = transport
        self._over_ssl = True
        self._reader._transport = transport  # type: ignore[attr-defined]  # bpo-45384: only start_tls of 3.12 does it
        self._writer._transport = transport  # type: ignore[attr-defined]
        self._reader._buffer.clear()  # type: ignore[attr-defined]
        self._input = b""

    async def smtp_AUTH(self, argument: str) -> Reply:
        name, _, initial = argument.partition(" ")
        if not self._offer_auth:
            return replies.NOT_OFFERED
        if not self.session.is_esmtp:
            return replies.HELO_FIRST
        if self.session.tls is None:
            return replies.AUTH_NEEDS_TLS
        if self.session.user is not None or self._envelope is not None:
            return replies.BAD_SEQUENCE
        mechanism = MECHANISMS.get(name.upper())
        if mechanism is None:
            return replies.AUTH_UNKNOWN
        exchange = mechanism()
        challenge = next(exchange)
        try:
            response = await self._initial_response(initial, challenge)
            while True:
                challenge = exchange.send(response)
                response = await self._challenge(challenge)
        except StopIteration as done:
            credentials: Credentials = done.value
        except (SaslError, Base64Error, ValueError):
            return replies.AUTH_MALFORMED
        except EOFError:
            return replies.AUTH_CANCELLED
        result = await self.handler.authenticate(self.session, name.upper(), credentials)
        if isinstance(result, Reply):
            return result
        self.session = result
        return replies.AUTH_DONE

    async def _initial_response(self, initial: str, challenge: bytes) -> bytes:
        if initial == "":
            return await self._challenge(challenge)
        return b"" if initial == "=" else b64decode(initial.encode("ascii", "replace"), validate=True)

    async def _challenge(self, challenge: bytes) -> bytes:
        self._push(Reply(334, "", (b64encode(challenge).decode(),)))
        line = await self._read_line(MAX_AUTH_LINE)
        if line is None:
            raise ConnectionResetError
        if line == b"*":
            raise EOFError
        return b64decode(line, validate=True)

    async def smtp_XCLIENT(self, argument: str) -> Reply:
        if not self._xclient:
            return replies.NOT_OFFERED
        if self._envelope is not None:
            return replies.BAD_SEQUENCE
        try:
            client = parse_xclient(argument)
        except XclientError as error:
            return reply(501, "5.5.4", str(error))
        if client.ip is not None:
            self.session = await self.handler.impersonate(self.session, client.ip, client.port, client.name)
        self.session = replace(self.session, helo="", is_esmtp=False)
        self._reset_transaction()
        refusal = await self.handler.connected(self.session)
        if refusal is not None:
            return refusal
        return Reply(220, "", (f"{self.settings.hostname} ESMTP Smarthost",))

    # --- the transaction ------------------------------------------------------------------------------------------

    async def smtp_MAIL(self, argument: str) -> Reply:
        if not self.session.helo:
            return replies.HELO_FIRST
        if self.session.is_submission and self.session.user is None:
            return replies.AUTH_REQUIRED
        if self._envelope is not None:
            return replies.NESTED_MAIL
        if self._messages >= self.settings.messages:
            return replies.too_many_messages(self.settings.hostname)
        mail = parse_mail(argument, esmtp=self.session.is_esmtp)
        if mail.size is not None and mail.size > self.settings.size:
            return replies.too_big(self.settings.size)
        refusal = await self.handler.mail(self.session, mail)
        if refusal is not None:
            return refusal
        self._envelope = Envelope(
            mail.reverse_path, (), mail.body, mail.smtputf8, mail.ret, mail.envid, declared_size=mail.size
        )
        return replies.SENDER_OK

    async def smtp_RCPT(self, argument: str) -> Reply:
        if self._envelope is None:
            return replies.MAIL_FIRST
        rcpt = parse_rcpt(argument, esmtp=self.session.is_esmtp, smtputf8=self._envelope.smtputf8)
        if len(self._envelope.recipients) >= self.settings.recipients:
            return replies.TOO_MANY_RECIPIENTS
        result = await self.handler.rcpt(self.session, self._envelope, rcpt)
        if isinstance(result, Reply):
            return result
        self._envelope = replace(self._envelope, recipients=(*self._envelope.recipients, result))
        return replies.RECIPIENT_OK

    def _transaction_lacks(self) -> Reply | None:
        if self._envelope is None:
            return replies.MAIL_FIRST
        return None if self._envelope.recipients else replies.NO_RECIPIENTS

    async def smtp_DATA(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        lack = self._transaction_lacks()
        if lack is not None:
            return lack
        self._content = self.handler.content()
        self._push(replies.START_DATA)
        self._data_deadline = self.loop.time() + self.settings.data_s
        try:
            breach = await self._receive_data(self._content)
        finally:
            self._data_deadline = None
        if breach is not None:
            self._reset_transaction()
            if breach is replies.SMUGGLING:
                self._refuse_and_close(breach)
                return None
            return breach
        return await self._finish_message()

    async def _receive_data(self, content: Content) -> Reply | None:
        """Stream up to the final dot. A breach of size or space is answered only there (RFC 5321 4.2.5)."""
        decoder, scanner = DataDecoder(), self._scanner
        repair = LineEndRepair() if self._repair else None
        breach: Reply | None = None
        chunk = self._input
        while True:
            if chunk:
                body = decoder.feed(repair.feed(chunk) if repair is not None else chunk)
                scanner.feed(body)
                facts = scanner.facts
                if (facts.bare_lf or facts.bare_cr) and decoder.has_lone_dot():
                    return replies.SMUGGLING
                if breach is None:
                    breach = await self._store(content, body)
                elif facts.size > DRAIN_FACTOR * self.settings.size:
                    return replace(breach, code=421, status="4.3.4")
                if decoder.done:
                    self._input = decoder.rest
                    return breach
            chunk = await self._read()
            if not chunk:
                raise ConnectionResetError  # the client vanished: nothing is kept

    async def _store(self, content: Content, octets: bytes) -> Reply | None:
        if self._scanner.facts.size > self.settings.size:
            content.discard()
            return replies.too_big(self.settings.size)
        try:
            await content.write(octets)
        except Exception as error:
            content.discard()
            return self.handler.failed(self.session, self._verb, error)
        return None

    async def _finish_message(self) -> Reply:
        content, envelope = cast(Content, self._content), cast(Envelope, self._envelope)
        facts = self._scanner.finish()
        breach = self._breach_of(facts)
        if breach is not None:
            self._reset_transaction()
            return breach
        self._content = None  # the handler owns it now
        self._messages += 1
        try:
            return await self.handler.message(self.session, envelope, content, facts)
        finally:
            self._reset_transaction()

    def _breach_of(self, facts: ContentFacts) -> Reply | None:
        if facts.bare_lf or facts.bare_cr:
            return replies.BARE_LINE_END
        if facts.has_nul:
            return replies.NUL_OCTET
        if facts.has_long_line:
            return replies.long_line(self.settings.line)
        return None

    async def smtp_BDAT(self, argument: str) -> Reply | None:
        size_text, _, last_text = argument.partition(" ")
        if not size_text.isdigit() or len(size_text) > 20 or last_text.upper() not in ("", "LAST"):
            # How many octets follow is unknown, so no later octet can be taken for a command.
            self._refuse_and_close(replies.BDAT_SYNTAX)
            return None
        size, is_last = int(size_text), bool(last_text)
        breach = self._transaction_lacks()
        if breach is None and self._scanner.facts.size + size > self.settings.size:
            breach = replies.too_big(self.settings.size)
        if breach is None and self._content is None:
            self._content = self.handler.content()
            self._data_deadline = self.loop.time() + self.settings.data_s
        breach = await self._receive_chunk(size, breach)
        if breach is not None:
            self._data_deadline = None
            self._reset_transaction()
            return breach
        if not is_last:
            return reply(250, "2.0.0", f"{size} octets received")
        self._data_deadline = None
        return await self._finish_message()

    async def _receive_chunk(self, size: int, breach: Reply | None) -> Reply | None:
        """Exactly `size` octets, stored unless there is a breach."""
        if breach is not None and size > DRAIN_FACTOR * self.settings.size:
            self._refuse_and_close(breach)
            return None
        left = size
        chunk = self._input
        while left:
            if not chunk:
                chunk = await self._read()
                if not chunk:
                    raise ConnectionResetError
            octets, chunk = chunk[:left], chunk[left:]
            left -= len(octets)
            if breach is None and self._content is not None:
                self._scanner.feed(octets)
                breach = await self._store(self._content, octets)
        self._input = chunk
        return breach


def _tls_of(ssl_object: ssl.SSLObject) -> Tls:
    cipher = ssl_object.cipher()
    return Tls(ssl_object.version() or "", cipher[0] if cipher else "")


_VERBS = {name[5:].encode(): name[5:] for name in dir(SmtpServer) if name.startswith("smtp_")}
_DURING_BDAT = frozenset({"BDAT", "RSET", "NOOP", "QUIT", "EHLO", "HELO"})
_OTHER_PROTOCOLS = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"})
