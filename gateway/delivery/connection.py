"""One connection to a remote SMTP host: greeting, TLS, AUTH, and transactions (timeouts of RFC 5321 4.5.3.2)."""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain

from gateway.core.address import Mailbox
from gateway.core.reply import Reply, reply
from gateway.delivery.answers import fill, judge_envelope, odd
from gateway.smtp import client
from gateway.smtp.client import NO_EXTENSIONS, Extensions, Outgoing, ReplyError, ReplyReader

GREETING_S = 300.0
COMMAND_S = 300.0  # MAIL, RCPT
DATA_INIT_S = 120.0
DATA_BLOCK_S = 180.0
DATA_END_S = 600.0
QUIT_S = 2.0
HANDSHAKE_S = 60.0
READ_SIZE = 16 * 1024
UNIX = "unix:"  # what the address of a socket in the file system begins with


class TlsMode(Enum):
    """NONE: in clear. MAY: STARTTLS where offered, any certificate. ENCRYPT: STARTTLS or nothing, any certificate.
    VERIFY: STARTTLS or nothing, a certificate that names the host. IMPLICIT: from the start, and as VERIFY.
    """

    NONE = auto()
    MAY = auto()
    ENCRYPT = auto()
    VERIFY = auto()
    IMPLICIT = auto()


class HostUnusable(Exception):
    """The host cannot be used now; `reply` says why.

    tls: its TLS is broken, so in clear it may do; slow: it let us wait until a deadline; is_down: nothing works there
    (set by the pool, which knows of other connections).
    """

    is_down = True

    def __init__(self, answer: Reply, *, tls: bool = False, slow: bool = False) -> None:
        super().__init__(str(answer))
        self.reply = answer
        self.tls = tls
        self.slow = slow


class LoopsBack(Exception):
    """The host is this gateway itself."""


class ConnectionLost(Exception):
    """In mid-transaction. after_end: the end of data was sent, so the host may have taken the message."""

    def __init__(self, reason: str, *, after_end: bool = False) -> None:
        super().__init__(reason)
        self.after_end = after_end


class LeaseLost(Exception):
    """Another runner may have this message: nothing was finished."""


@dataclass(frozen=True, slots=True)
class Target:
    """A connection's identity for reuse. address: an IP address or `unix:/path`."""

    name: str
    address: str
    port: int
    mode: TlsMode
    username: str = ""
    is_lmtp: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str
    mechanism: str  # "plain" "login"

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"


class Connection:
    """Use `open`, then any number of `transaction`, then `quit`."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.target = target
        self.extensions: Extensions = NO_EXTENSIONS
        self.tls_version = ""
        self.uses = 0
        self.idle_since = 0.0
        self.is_usable = True
        self._reader, self._writer = reader, writer
        self._parser = ReplyReader()
        self._replies: list[Reply] = []

    @classmethod
    async def open(
        cls,
        target: Target,
        *,
        hostname: str,
        connect_s: float,
        source: str | None,
        context: ssl.SSLContext | None,
        credentials: Credentials | None,
    ) -> "Connection":
        """Raises HostUnusable, LoopsBack."""
        try:
            async with asyncio.timeout(connect_s):
                reader, writer = await _streams(target, source, context)
        except TimeoutError:
            raise HostUnusable(_trouble(target, "connection timed out"), slow=True) from None
        except ssl.SSLError as error:
            raise HostUnusable(_trouble(target, f"TLS: {_reason(error)}", "4.7.5")) from None
        except OSError as error:
            raise HostUnusable(_trouble(target, error.strerror or "cannot connect")) from None
        connection = cls(target, reader, writer)
        try:
            await connection._begin(hostname, context, credentials)
        except (OSError, TimeoutError, EOFError, ReplyError) as error:
            connection.abort()
            answer = _trouble(target, f"lost in the greeting: {_reason(error)}", "4.4.2")
            raise HostUnusable(answer, slow=isinstance(error, TimeoutError)) from None
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _begin(self, hostname: str, context: ssl.SSLContext | None, credentials: Credentials | None) -> None:
        greeting = await self._reply(GREETING_S)
        if greeting.code != 220:
            raise HostUnusable(self._quote(greeting))
        await self._hello(hostname)
        mode = self.target.mode
        if mode is TlsMode.IMPLICIT:
            self._note_tls()
        elif mode in (TlsMode.ENCRYPT, TlsMode.VERIFY) or (mode is TlsMode.MAY and self.extensions.has("STARTTLS")):
            await self._start_tls(hostname, context)
        if credentials is not None:
            await self._sign_in(credentials)

    async def _hello(self, hostname: str) -> None:
        if self.target.is_lmtp:
            answer = await self._command(f"LHLO {hostname}\r\n".encode())
            if answer.code != 250:
                raise HostUnusable(self._quote(answer))
            self.extensions = client.parse_extensions(answer)
            return
        answer = await self._command(f"EHLO {hostname}\r\n".encode())
        if answer.code == 250:
            if answer.lines[0].partition(" ")[0].lower() == hostname.lower():
                raise LoopsBack
            self.extensions = client.parse_extensions(answer)
            return
        if answer.is_temporary:
            raise HostUnusable(self._quote(answer))
        answer = await self._command(f"HELO {hostname}\r\n".encode())
        if answer.code != 250:
            raise HostUnusable(self._quote(answer))
        self.extensions = NO_EXTENSIONS

    async def _start_tls(self, hostname: str, context: ssl.SSLContext | None) -> None:
        if context is None or not self.extensions.has("STARTTLS"):
            raise HostUnusable(_trouble(self.target, "TLS is required and not offered", "4.7.4"), tls=True)
        answer = await self._command(b"STARTTLS\r\n")
        if answer.code != 220:
            raise HostUnusable(self._quote(answer), tls=True)
        if self._replies or not self._parser.is_clean:
            raise HostUnusable(_trouble(self.target, "octets behind STARTTLS", "4.7.5"), tls=True)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._writer.start_tls(context, server_hostname=self.target.name.strip("[]"))
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            raise HostUnusable(_trouble(self.target, f"TLS: {_reason(error)}", "4.7.5"), tls=True) from None
        self._note_tls()
        await self._hello(hostname)

    def _note_tls(self) -> None:
        found = self._writer.get_extra_info("ssl_object")
        self.tls_version = found.version() if found is not None else ""

    async def _sign_in(self, credentials: Credentials) -> None:
        wanted = credentials.mechanism.upper()
        if wanted not in self.extensions.auth_mechanisms:
            raise HostUnusable(_trouble(self.target, f"AUTH {wanted} is not offered", "4.7.0"))
        if wanted == "PLAIN":
            answer = await self._command(client.auth_plain(credentials.username, credentials.password))
        else:
            answer = reply(334, "", "")
            for step in client.auth_login(credentials.username, credentials.password):
                if answer.code == 334:
                    answer = await self._command(step)
        if answer.code != 235:
            # Our configuration is wrong or the provider's login is down: mail waits for somebody to mend it.
            raise HostUnusable(_trouble(self.target, f"sign-in refused: {answer}", "4.7.8"))

    # --- transactions ---------------------------------------------------------------------------------------------

    async def transaction(
        self, outgoing: Outgoing, content: Callable[[], Iterable[bytes]], is_small: bool, is_ours: Callable[[], bool]
    ) -> list[Reply]:
        """A reply for each recipient, in order. is_ours: asked right before the end of data.

        Raises ConnectionLost, LeaseLost; the connection is not usable then.
        """
        self.uses += 1
        try:
            if self.extensions.has("CHUNKING") and not self.target.is_lmtp:
                answers = await self._by_bdat(outgoing, content, is_small, is_ours)
            else:
                answers = await self._by_data(outgoing, content, is_small, is_ours)
        except (OSError, TimeoutError, EOFError, ReplyError) as error:
            self.abort()
            raise ConnectionLost(_reason(error)) from None
        except BaseException:
            self.abort()
            raise
        if self.is_usable and not any(answer.is_success for answer in answers):
            await self._reset()
        return answers

    async def probe(self, mailbox: Mailbox) -> Reply:
        """The reply to RCPT in a transaction from the null reverse-path that goes no further. Raises ConnectionLost."""
        self.uses += 1
        try:
            utf8 = b"" if str(mailbox).isascii() or not self.extensions.has("SMTPUTF8") else b" SMTPUTF8"
            answer = await self._command(b"MAIL FROM:<>" + utf8 + b"\r\n")
            if answer.is_success:
                answer = await self._command(client.rcpt_command(mailbox, "", frozenset(), NO_EXTENSIONS))
            elif answer.code == 421:
                raise EOFError(str(answer))
            else:
                answer = Reply(450, "4.7.0", answer.lines)  # of the null reverse-path, not of the mailbox
        except (OSError, TimeoutError, EOFError, ReplyError) as error:
            self.abort()
            raise ConnectionLost(_reason(error)) from None
        except BaseException:
            self.abort()
            raise
        if self.is_usable:
            await self._reset()
        return answer

    async def _reset(self) -> None:
        """The transaction may still be open. A server that refused and closed has said all that counts."""
        try:
            if not (await self._command(b"RSET\r\n")).is_success:
                self.abort()
        except (OSError, TimeoutError, EOFError, ReplyError):
            self.abort()

    def _envelope(self, outgoing: Outgoing) -> list[bytes]:
        mail = client.mail_command(outgoing, self.extensions)
        return [mail, *(client.rcpt_command(*to, self.extensions) for to in outgoing.recipients)]

    async def _by_data(
        self, outgoing: Outgoing, content: Callable[[], Iterable[bytes]], is_small: bool, is_ours: Callable[[], bool]
    ) -> list[Reply]:
        mail, *rcpts = await self._commands([*self._envelope(outgoing), b"DATA\r\n"])
        start = rcpts.pop()
        answers = judge_envelope(mail, rcpts)
        accepted = any(answer is None for answer in answers)
        if start.code != 354:
            if start.code == 421:
                self.abort()
            return fill(answers, start if not start.is_success else odd(start))
        if not accepted and self.target.is_lmtp:
            self.abort()  # 354 although nobody was accepted, and no reply is owed to what follows
            return fill(answers, mail)
        if not accepted:
            await self._send(b".\r\n")  # RFC 2920 3.1: the same, and one is owed
            await self._reply(DATA_END_S)
            return fill(answers, mail)
        if not is_ours():
            raise LeaseLost
        pieces: Iterable[bytes] = client.stuff_dots(content())
        if is_small:
            pieces = (b"".join(pieces),)
        held = b""  # one piece behind, so that the lease is looked at right before the final dot goes
        for piece in pieces:
            if held:
                await self._send(held)
            held = piece
        if not is_ours():
            raise LeaseLost
        if self.target.is_lmtp:
            return await self._end_each(held, answers)
        return fill(answers, await self._end(held))

    async def _end_each(self, last: bytes, answers: list[Reply | None]) -> list[Reply]:
        """RFC 2033 4.2: a word for each recipient that was accepted. What was said of some counts, should the others'
        be missing: nobody gets the message twice for another's sake.
        """
        found: list[Reply] = []
        for answer in answers:
            if answer is None:
                answer, last = await self._end_one(last), b""
            found.append(answer)
        return found

    async def _end_one(self, last: bytes) -> Reply:
        if self._writer.is_closing():
            return _trouble(self.target, "was lost after the end of data", "4.4.2")
        try:
            await self._send(last)
            return await self._reply(DATA_END_S)
        except (OSError, TimeoutError, EOFError, ReplyError) as error:
            self.abort()
            return _trouble(self.target, f"lost after the end of data: {_reason(error)}", "4.4.2")

    async def _by_bdat(
        self, outgoing: Outgoing, content: Callable[[], Iterable[bytes]], is_small: bool, is_ours: Callable[[], bool]
    ) -> list[Reply]:
        if is_small and self.extensions.has("PIPELINING"):
            octets = b"".join(content())
            if not is_ours():
                raise LeaseLost
            last = b"BDAT %d LAST\r\n" % len(octets) + octets
            try:
                await self._send(b"".join([*self._envelope(outgoing), last]))
                mail, *rcpts = await self._read_replies(1 + len(outgoing.recipients))
                answers = judge_envelope(mail, rcpts)
                return fill(answers, await self._end(b"") if self.is_usable else mail)
            except (OSError, TimeoutError, EOFError, ReplyError) as error:
                self.abort()
                raise ConnectionLost(_reason(error), after_end=True) from None
        mail, *rcpts = await self._commands(self._envelope(outgoing))
        answers = judge_envelope(mail, rcpts)
        if all(answer is not None for answer in answers):
            return fill(answers, mail)
        return fill(answers, await self._chunks(content(), is_ours))

    async def _chunks(self, content: Iterable[bytes], is_ours: Callable[[], bool]) -> Reply:
        held: list[bytes] = []
        size = 0
        for piece in chain(content, (b"",)):
            if piece and size < client.BDAT_CHUNK:
                held.append(piece)
                size += len(piece)
                continue
            if not piece:
                break
            await self._send(b"BDAT %d\r\n" % size + b"".join(held))
            answer = await self._reply(DATA_BLOCK_S)
            if not answer.is_success:
                return answer
            held, size = [piece], len(piece)
        if not is_ours():
            raise LeaseLost
        return await self._end(b"BDAT %d LAST\r\n" % size + b"".join(held))

    async def _end(self, last: bytes) -> Reply:
        """Send what ends the data and wait for the word on it."""
        try:
            await self._send(last)
            answer = await self._reply(DATA_END_S)
        except (OSError, TimeoutError, EOFError, ReplyError) as error:
            self.abort()
            raise ConnectionLost(_reason(error), after_end=True) from None
        if answer.code == 421:
            self.abort()
        return answer

    # --- octets ---------------------------------------------------------------------------------------------------

    async def _commands(self, commands: list[bytes]) -> list[Reply]:
        """All at once where PIPELINING is offered, else one by one; DATA is not sent when it could not be meant."""
        if self.extensions.has("PIPELINING"):
            await self._send(b"".join(commands))
            return await self._read_replies(len(commands))
        answers: list[Reply] = []
        for command in commands:
            is_data = command == b"DATA\r\n"
            if answers and (not answers[0].is_success or (is_data and not any(a.is_success for a in answers[1:]))):
                answers.append(answers[0] if not answers[0].is_success else answers[-1])
                continue
            answers.append(await self._command(command, DATA_INIT_S if is_data else COMMAND_S))
        return answers

    async def _read_replies(self, count: int) -> list[Reply]:
        """Replies to a group. A server that refuses and closes at once has answered the rest of the group too."""
        answers: list[Reply] = []
        while len(answers) < count:
            try:
                answers.append(await self._reply(COMMAND_S))
            except (OSError, EOFError):
                if not answers or answers[-1].is_positive:
                    raise
                self.abort()
                answers += [answers[-1]] * (count - len(answers))
        return answers

    async def _command(self, line: bytes, timeout_s: float = COMMAND_S) -> Reply:
        await self._send(line)
        return await self._reply(timeout_s)

    async def _send(self, octets: bytes) -> None:
        self._writer.write(octets)
        async with asyncio.timeout(DATA_BLOCK_S):
            await self._writer.drain()

    async def _reply(self, timeout_s: float) -> Reply:
        if not self._replies:
            async with asyncio.timeout(timeout_s):
                while not self._replies:
                    octets = await self._reader.read(READ_SIZE)
                    if not octets:
                        raise EOFError("connection closed")
                    self._replies += self._parser.feed(octets)
        answer = self._replies.pop(0)
        if answer.code == 421:
            self.is_usable = False
        return answer

    def is_alive(self) -> bool:
        """May it be used again? A server that closed or spoke unasked is left."""
        return (
            self.is_usable
            and not self._writer.is_closing()
            and not self._reader.at_eof()
            and not self._reader._buffer  # type: ignore[attr-defined]  # no public way to see octets that came unasked
            and not self._replies
            and self._parser.is_clean
        )

    async def quit(self) -> None:
        try:
            self._writer.write(b"QUIT\r\n")
            async with asyncio.timeout(QUIT_S):
                await self._reply(QUIT_S)
        except (OSError, TimeoutError, EOFError, ReplyError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        self.is_usable = False
        self._writer.transport.abort()

    def _quote(self, answer: Reply) -> Reply:
        return _trouble(self.target, f"said: {answer}", "4.4.2")


async def _streams(
    target: Target, source: str | None, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.address.startswith(UNIX):
        return await asyncio.open_unix_connection(target.address.removeprefix(UNIX))
    implicit = context if target.mode is TlsMode.IMPLICIT else None
    return await asyncio.open_connection(
        target.address,
        target.port,
        ssl=implicit,
        server_hostname=target.name if implicit else None,
        local_addr=(source, 0) if source else None,
    )


def _trouble(target: Target, what: str, status: str = "4.4.1") -> Reply:
    return reply(451, status, f"{target.name}[{target.address}]:{target.port} {what}"[:400])


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "handshake failed")
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__
