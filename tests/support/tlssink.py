"""An SMTP server for tests that can TLS and AUTH, and can be told to misbehave: where smtp-sink's options end."""

import asyncio
import contextlib
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .process import LOOPBACK, free_port, wait_until

LIMIT = 64 * 1024 * 1024  # octets of one message


@dataclass(frozen=True, slots=True)
class Taken:
    """One message that got its 250. mail, recipients: arguments as sent; data: without dot-stuffing."""

    tls: str
    user: str
    helo: str
    mail: str
    recipients: tuple[str, ...]
    data: bytes

    @property
    def forward_paths(self) -> tuple[str, ...]:
        return tuple(argument.partition("<")[2].partition(">")[0] for argument in self.recipients)


class TlsSink:
    """All options are attributes that may be changed while it runs; they hold from the next command on.

    replies: verb ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", ".", "BDAT", ...) or recipient address to a whole reply
    line instead of the usual one; a reply of 421 also closes. drop_at: a verb at which it hangs up without a word.
    users: name to password, for AUTH by `mechanisms`. After STARTTLS with `broken_handshake` it speaks nonsense.
    """

    def __init__(
        self,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        host: str = LOOPBACK,
        port: int | None = None,
        starttls: bool = True,
        implicit: bool = False,
        broken_handshake: bool = False,
        eightbit: bool = True,
        pipelining: bool = True,
        chunking: bool = False,
        dsn: bool = False,
        smtputf8: bool = False,
        size: int = 0,
        esmtp: bool = True,
        mechanisms: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
        replies: Mapping[str, str] | None = None,
        drop_at: str = "",
    ) -> None:
        self.host, self.port = host, free_port() if port is None else port
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        self.starttls = starttls and certificate is not None and not implicit
        self.implicit = implicit
        self.broken_handshake = broken_handshake
        self.eightbit, self.pipelining, self.chunking = eightbit, pipelining, chunking
        self.dsn, self.smtputf8, self.size, self.esmtp = dsn, smtputf8, size, esmtp
        self.mechanisms = tuple(mechanisms)
        self.users = dict(users or {})
        self.replies = dict(replies or {})
        self.drop_at = drop_at
        self.commands: list[str] = []  # every line got outside of messages, of all sessions
        self.messages: list[Taken] = []
        self.connections = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halt = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def verbs(self) -> list[str]:
        """The commands without their arguments."""
        return [command.partition(" ")[0].upper() for command in self.commands]

    def wait_messages(self, count: int, timeout: float = 20.0) -> list[Taken]:
        wait_until(lambda: len(self.messages) >= count, timeout, f"{count} messages in the TLS sink")
        return list(self.messages)

    def start(self) -> Self:
        ready = threading.Event()
        self._halt = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="tlssink", daemon=True)
        self._thread.start()
        if not ready.wait(10.0):
            raise RuntimeError("the TLS sink did not start")
        return self

    def stop(self) -> None:
        if self._thread is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._halt.set)
            self._thread.join(10.0)
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        context = self.context if self.implicit else None
        server = await asyncio.start_server(self._accept, self.host, self.port, limit=LIMIT, ssl=context)
        ready.set()
        await self._halt.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):  # the transports close their sockets in the loop's next rounds
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(_Dialogue(self, reader, writer).run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Dialogue:
    """One connection."""

    def __init__(self, sink: TlsSink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._reader, self._writer = reader, writer
        self._helo = self._user = self._mail = ""
        self._recipients: list[str] = []
        self._chunks: list[bytes] = []

    async def run(self) -> None:
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await self._converse()
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._writer.wait_closed()
        finally:
            self._writer.transport.abort()

    async def _converse(self) -> None:
        if not await self._say("CONNECT", "220 tlssink.test ESMTP"):
            return
        while line := await self._reader.readline():
            command = line.decode("utf-8", "replace").rstrip("\r\n")
            self._sink.commands.append(command)
            if not await self._command(command):
                return

    async def _say(self, verb: str, usual: str, recipient: str = "") -> bool:
        """The reply to a command, or what was ordered instead; False when the connection shall end."""
        if verb and self._sink.drop_at == verb:
            self._writer.transport.abort()
            return False
        answer = self._sink.replies.get(recipient) or self._sink.replies.get(verb) or usual
        self._writer.write(answer.encode() + b"\r\n")
        await self._writer.drain()
        return not answer.startswith("421")

    async def _command(self, command: str) -> bool:
        verb, _, argument = command.partition(" ")
        sink, verb = self._sink, verb.upper()
        match verb:
            case "EHLO" if sink.esmtp:
                self._helo = argument
                return await self._say(verb, self._extensions())
            case "HELO":
                self._helo = argument
                return await self._say(verb, "250 tlssink.test")
            case "MAIL":
                self._mail, self._recipients, self._chunks = argument, [], []
                if not sink.replies.get(verb, "250").startswith("2"):
                    self._mail = ""
                return await self._say(verb, "250 2.1.0 OK")
            case "RCPT" if not self._mail:
                return await self._say("", "503 5.5.1 MAIL first")
            case "RCPT":
                path = argument.partition("<")[2].partition(">")[0]
                if not await self._say(verb, "250 2.1.5 OK", path):
                    return False
                if (sink.replies.get(path) or sink.replies.get(verb) or "250").startswith("2"):
                    self._recipients.append(argument)
                return True
            case "DATA":
                return await self._data()
            case "BDAT":
                return await self._bdat(argument)
            case "STARTTLS" if sink.starttls:
                return await self._start_tls()
            case "AUTH" if sink.mechanisms:
                return await self._auth(argument)
            case "RSET" | "NOOP":
                self._recipients = []
                return await self._say(verb, "250 2.0.0 OK")
            case "QUIT":
                await self._say(verb, "221 2.0.0 bye")
                return False
            case _:
                return await self._say(verb, "502 5.5.1 not here")

    def _tls(self) -> str:
        found = self._writer.get_extra_info("ssl_object")
        return found.version() or "" if found is not None else ""

    def _extensions(self) -> str:
        sink = self._sink
        offered = [
            (sink.starttls and not self._tls(), "STARTTLS"),
            (sink.eightbit, "8BITMIME"),
            (sink.pipelining, "PIPELINING"),
            (sink.chunking, "CHUNKING"),
            (sink.dsn, "DSN"),
            (sink.smtputf8, "SMTPUTF8"),
            (sink.size, f"SIZE {sink.size}"),
            (sink.mechanisms, f"AUTH {' '.join(sink.mechanisms)}"),
        ]
        lines = ["tlssink.test", *(word for wanted, word in offered if wanted), "HELP"]
        return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])

    async def _start_tls(self) -> bool:
        if not await self._say("STARTTLS", "220 2.0.0 go ahead"):
            return False
        if self._sink.broken_handshake:
            await self._reader.read(16)
            self._writer.write(b"220 what was that?\r\n" * 4)
            await self._writer.drain()
            return False
        assert self._sink.context is not None
        await self._writer.start_tls(self._sink.context)
        self._reader._transport = self._writer.transport  # type: ignore[attr-defined]  # bpo-45384
        self._helo = ""
        return True

    async def _auth(self, argument: str) -> bool:
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() == "PLAIN":
            _, user, password = b64decode(initial or await self._challenge("")).decode().split("\0")
        else:
            user = b64decode(initial or await self._challenge("Username:")).decode()
            password = b64decode(await self._challenge("Password:")).decode()
        if self._sink.users.get(user) != password:
            return await self._say("AUTH", "535 5.7.8 wrong")
        self._user = user
        return await self._say("AUTH", "235 2.7.0 welcome")

    async def _challenge(self, text: str) -> bytes:
        self._writer.write(b"334 " + b64encode(text.encode()) + b"\r\n")
        line = await self._reader.readline()
        self._sink.commands.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        return line.strip()

    async def _data(self) -> bool:
        if not self._recipients:
            return await self._say("DATA", "554 5.5.1 no recipients")
        if not await self._say("DATA", "354 go ahead"):
            return False
        if not self._sink.replies.get("DATA", "354").startswith("3"):
            return True
        pieces = [await self._reader.readuntil(b".\r\n")]
        while pieces != [b".\r\n"] and not b"".join(pieces[-2:]).endswith(b"\r\n.\r\n"):
            pieces.append(await self._reader.readuntil(b".\r\n"))
        stuffed = b"".join(pieces)[:-3]
        return await self._take((b"\r\n" + stuffed).replace(b"\r\n..", b"\r\n.")[2:])

    async def _bdat(self, argument: str) -> bool:
        size, _, last = argument.partition(" ")
        self._chunks.append(await self._reader.readexactly(int(size)))
        if not self._recipients:
            return await self._say("BDAT", "554 5.5.1 no recipients")
        if last.upper() != "LAST":
            return await self._say("BDAT", "250 2.0.0 more")
        return await self._take(b"".join(self._chunks))

    async def _take(self, data: bytes) -> bool:
        """Kept before it is answered for, as a server that does not lose mail would."""
        is_taken = self._sink.drop_at != "." and self._sink.replies.get(".", "250").startswith("2")
        if is_taken:
            taken = Taken(self._tls(), self._user, self._helo, self._mail, tuple(self._recipients), data)
            self._sink.messages.append(taken)
        self._recipients, self._chunks = [], []
        return await self._say(".", "250 2.0.0 taken")
