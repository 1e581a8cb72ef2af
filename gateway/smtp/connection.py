"""One SMTP connection on aiosmtpd's SMTP class: its place in asyncio, the command loop, replies, limits and timeouts.

The subclass keeps aiosmtpd's transport plumbing and its dispatch by `smtp_VERB` methods, and replaces what
docs/decisions/0002-aiosmtpd.md lists. The verbs are in `session` and `server`.

Order of replies is the order of commands; replies wait until the client's pipelined input is used up (RFC 2920 3.2).
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, cast

from aiosmtpd.smtp import SMTP

from gateway.core.reply import Reply
from gateway.core.transaction import Envelope, Session, Tls
from gateway.smtp import replies
from gateway.smtp.data import ContentScanner
from gateway.smtp.grammar import GrammarError
from gateway.smtp.handler import Content, Handler, ServerSettings

READ_SIZE = 128 * 1024
MAX_COMMAND = 2048  # octets with CRLF: 512 (RFC 5321 4.5.3.1.4) and room for SIZE, SMTPUTF8, DSN, ORCPT
MAX_AUTH_LINE = 12288  # RFC 4954 4
FAIR_SHARE = 10  # commands of one session between two turns of the others
LINGER_S = 2.0  # after a refusal in mid-stream: read on that long, so that the reply is not lost to a reset
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")  # has no place in a command; octets over 127 are the grammar's matter
_DURING_BDAT = frozenset({"BDAT", "RSET", "NOOP", "QUIT", "EHLO", "HELO"})
_OTHER_PROTOCOLS = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS"})


class LineTooLong(Exception):
    """A line over its limit was read to its end and thrown away."""


class SmtpConnection(SMTP):
    """One connection without its verbs. `run` is the whole dialogue; asyncio calls the rest."""

    verbs: ClassVar[dict[bytes, str]] = {}

    def __init_subclass__(cls) -> None:
        """aiosmtpd's rule: each method smtp_VERB is a command. Looked up once a class, not once a connection."""
        cls.verbs = {name[5:].encode(): name[5:] for name in dir(cls) if name.startswith("smtp_")}

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
        on_done: Callable[["SmtpConnection"], None] | None = None,
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
        self._is_greeted = self._spoke_early = False
        self._must_close = False
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
            self.session = replace(self.session, tls=tls_of(tls))
        self._watch_handle = self.loop.call_later(self.settings.idle_s, self._watch)
        self._handler_coroutine = self.loop.create_task(self.run())

    def connection_lost(self, error: Exception | None) -> None:
        # The dialogue is not cancelled: what the client has sent whole is judged and stored (a client may send the
        # dot and go). It ends by itself at the next read.
        super(SMTP, self).connection_lost(error)
        self.transport = None

    def data_received(self, data: bytes) -> None:
        if not self._is_greeted:
            self._spoke_early = True
        super(SMTP, self).data_received(data)

    def eof_received(self) -> bool | None:
        keep_open: bool | None = super(SMTP, self).eof_received()
        return keep_open

    @property
    def is_new(self) -> bool:
        """Not connected yet: a TLS handshake may still be under way."""
        return self._handler_coroutine is None

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

    def _set_data_deadline(self, seconds: float | None) -> None:
        if seconds is None and self._data_deadline is None:
            return
        self._data_deadline = None if seconds is None else self.loop.time() + seconds
        if seconds is not None and seconds < self.settings.idle_s and self._watch_handle is not None:
            self._watch_handle.cancel()
            self._watch()

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
                try:
                    line = await self._read_line(MAX_AUTH_LINE)
                except LineTooLong:
                    self._refuse(replies.LINE_TOO_LONG)
                    continue
                if line is None:
                    break
                await self._command(line)
                if self._commands % FAIR_SHARE == 0:
                    await asyncio.sleep(0)  # a long pipelined group leaves room for other sessions
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
            async with asyncio.timeout(2 * LINGER_S):
                await self._flush()
                if self._lingering:
                    await self._linger()
        if self.transport is not None:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                # A peer that does not read would keep a closing transport for ever.
                self.loop.call_later(LINGER_S, self.transport.abort)
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
        refusal = await self._guarded("connect", self.handler.connected(self.session, self._early_talk))
        if refusal is not None:
            self._push(refusal)
            self._closing = self._lingering = True
            return
        self._is_greeted = True
        self._push(Reply(220, "", (f"{self.settings.hostname} ESMTP Smarthost",)))
        if self._input == b"":
            await self._flush()

    async def _early_talk(self, seconds: float) -> bool:
        """`core.ports.EarlyTalk`."""
        if not self._is_greeted and not self._spoke_early:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    self._input += await self._read()
        return self._spoke_early

    async def _command(self, line: bytes) -> None:
        verb_octets, _, argument_octets = line.partition(b" ")
        name = self.verbs.get(verb_octets.upper())
        self._verb = name or "?"
        self._commands += not (name == "BDAT" and self._content is not None)  # chunks are one command in parts
        if self._draining:
            self._refuse_and_close(replies.shutting_down(self.settings.hostname))
            return
        if self._commands > self.settings.commands:
            self._refuse_and_close(replies.TOO_MANY_COMMANDS)
            return
        if len(line) + 2 > MAX_COMMAND and name != "AUTH":
            self._refuse(replies.LINE_TOO_LONG)
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
        """Count an error; at the limit the last word is 421, after the reply to the command itself."""
        # "Too many recipients" is how a long list is told to come in parts (RFC 5321 4.5.3.1.10): no error. Nor is
        # trouble of our own (4.3.x) the client's.
        self._errors += answer.status != "4.5.3" and not answer.status.startswith("4.3.")
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
        """One line without its CRLF; None at the end of input or after what ended the session. Raises LineTooLong."""
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
                if len(line) + 2 > limit:
                    raise LineTooLong
                return line
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

    # --- the transaction's state ------------------------------------------------------------------------------------

    def _reset_transaction(self) -> None:
        self._envelope = None
        self._set_data_deadline(None)
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


def tls_of(ssl_object: ssl.SSLObject) -> Tls:
    cipher = ssl_object.cipher()
    return Tls(ssl_object.version() or "", cipher[0] if cipher else "")
