"""LMTP (RFC 2033): another MTA delivers into the store, and hears of each recipient by itself.

Nothing is judged here, and nobody but own networks is served: who delivers so has judged the mail. A 250 means that
the message is in that mailbox, durably.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import BinaryIO

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox, ReversePath, parse_mailbox
from gateway.core.ident import new_id
from gateway.core.reply import Reply, reply
from gateway.delivery.local import FULL, NOBODY, STORED, UNAVAILABLE
from gateway.mailbox.maildir import with_crlf
from gateway.mailbox.quota import OverQuota
from gateway.message import trace
from gateway.servers.store_listener import HANDSHAKE_S, StoreServer
from gateway.smtp.data import DataDecoder
from gateway.smtp.grammar import GrammarError, parse_helo, parse_mail, parse_rcpt
from gateway.telemetry import log

COMMAND_S = 300.0
DATA_S = 600.0  # between pieces of the data
WRITE_S = 120.0
MAX_LINE = 2048
MAX_RECIPIENTS = 1000
MAX_ERRORS = 20
READ_SIZE = 64 * 1024

OK = reply(250, "2.0.0", "OK")
ELSEWHERE = reply(550, "5.1.6", "That leads elsewhere: hand it over by SMTP")
BAD_SEQUENCE = reply(503, "5.5.1", "Not now")
UNKNOWN = reply(500, "5.5.1", "Unknown command; this is LMTP")
TOO_MANY = reply(452, "4.5.3", "Too many recipients")
STRANGER = reply(554, "5.7.1", "LMTP is for own networks")

_log = log.get("lmtp")


@dataclass(slots=True)
class _Transaction:
    """recipients: as they were named, with the accounts that they lead to."""

    reverse_path: ReversePath
    smtputf8: bool
    recipients: list[tuple[Mailbox, tuple[str, ...]]] = field(default_factory=list)


class LmtpService:
    """Serves connections, as a listener wants it. networks: who may deliver."""

    def __init__(self, networks: Iterable[str], directory: AccountDirectory) -> None:
        self._directory = directory
        self._networks = [ip_network(text) for text in networks]

    async def __call__(
        self, server: StoreServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str, *, is_tls: bool
    ) -> None:
        address = ip_address(ip.partition("%")[0])
        if not any(address in network for network in self._networks):
            writer.write(STRANGER.render())
            return
        dialogue = _Dialogue(server, self._directory, reader, writer, ip)
        try:
            await dialogue.run()
        except asyncio.CancelledError:
            writer.write(reply(421, "4.3.2", f"{server.settings.hostname} stops").render())
            raise


class _Dialogue:
    def __init__(
        self,
        server: StoreServer,
        directory: AccountDirectory,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ip: str,
    ) -> None:
        self._server = server
        self._directory = directory
        self._reader, self._writer = reader, writer
        self._ip = ip
        self._id = new_id()
        self._held = b""  # read, and not yet taken
        self._client = ""
        self._is_tls = False
        self._transaction: _Transaction | None = None
        self._errors = 0
        self._is_over = False

    async def run(self) -> None:
        await self._say(reply(220, "", f"{self._server.settings.hostname} LMTP ready"))
        while not self._is_over:
            line = await self._line()
            if line is None:
                return
            await self._take(line)
            if self._errors > MAX_ERRORS:
                await self._say(reply(421, "4.7.0", "Too many errors"))
                return

    # --- octets ---------------------------------------------------------------------------------------------------

    async def _line(self) -> str | None:
        """Without its end; None at the end of the connection."""
        while (end := self._held.find(b"\n")) < 0:
            if len(self._held) > MAX_LINE:
                await self._say(reply(500, "5.5.2", "Line too long"))
                return None
            async with asyncio.timeout(COMMAND_S):
                octets = await self._reader.read(READ_SIZE)
            if not octets:
                return None
            self._held += octets
        line, self._held = self._held[:end], self._held[end + 1 :]
        return line.rstrip(b"\r").decode("utf-8", "replace")

    async def _say(self, *answers: Reply) -> None:
        self._errors += sum(answer.code >= 500 for answer in answers)
        self._writer.write(b"".join(answer.render() for answer in answers))
        if self._held and not self._is_over:
            return  # more was pipelined: answers go together
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()

    # --- commands -------------------------------------------------------------------------------------------------

    async def _take(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        match verb.upper():
            case "LHLO":
                await self._lhlo(argument)
            case "STARTTLS":
                await self._start_tls()
            case "MAIL":
                await self._say(self._mail(argument))
            case "RCPT":
                await self._say(await self._rcpt(argument))
            case "DATA":
                await self._data()
            case "RSET":
                self._transaction = None
                await self._say(OK)
            case "NOOP":
                await self._say(OK)
            case "VRFY":
                await self._say(reply(252, "2.5.2", "Try RCPT"))
            case "QUIT":
                self._is_over = True
                await self._say(reply(221, "2.0.0", "Bye"))
            case _:
                await self._say(UNKNOWN)

    async def _lhlo(self, argument: str) -> None:
        try:
            self._client = parse_helo(argument)
        except GrammarError as error:
            await self._say(error.reply)
            return
        self._transaction = None
        settings = self._server.settings
        words = ["PIPELINING", f"SIZE {settings.append_limit}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if not self._is_tls:
            words.append("STARTTLS")
        await self._say(Reply(250, "", (settings.hostname, *words)))

    async def _start_tls(self) -> None:
        if self._is_tls or not self._client:
            await self._say(BAD_SEQUENCE)
            return
        if self._held or self._reader._buffer:  # type: ignore[attr-defined]  # no public way to see
            self._is_over = True
            await self._say(reply(503, "5.5.1", "Commands must not follow STARTTLS before the handshake"))
            return
        await self._say(reply(220, "2.0.0", "Begin TLS"))
        await self._writer.start_tls(self._server.tls_context(), ssl_handshake_timeout=HANDSHAKE_S)
        self._is_tls, self._client, self._transaction = True, "", None

    def _mail(self, argument: str) -> Reply:
        if not self._client or self._transaction is not None:
            return BAD_SEQUENCE
        try:
            found = parse_mail(argument, esmtp=True)
        except GrammarError as error:
            return error.reply
        if found.size is not None and found.size > self._server.settings.append_limit:
            return reply(552, "5.3.4", f"At most {self._server.settings.append_limit} octets")
        self._transaction = _Transaction(found.reverse_path, found.smtputf8)
        return OK

    async def _rcpt(self, argument: str) -> Reply:
        transaction = self._transaction
        if transaction is None:
            return BAD_SEQUENCE
        if len(transaction.recipients) >= MAX_RECIPIENTS:
            return TOO_MANY
        try:
            found = parse_rcpt(argument, esmtp=True, smtputf8=transaction.smtputf8)
        except GrammarError as error:
            return error.reply
        mailbox = found.forward_path or self._postmaster()
        accounts = self._accounts(mailbox)
        if isinstance(accounts, Reply):
            return accounts
        for account in accounts:
            limit = self._server.store.limit(account)
            if limit and await self._used(account) >= limit:
                return FULL
        transaction.recipients.append((mailbox, accounts))
        return reply(250, "2.1.5", "OK")

    async def _used(self, account: str) -> int:
        octets, _ = await self._server.in_turn(account, lambda: self._server.store.usage(account))
        return octets

    def _postmaster(self) -> Mailbox:
        return parse_mailbox(f"postmaster@{min(self._directory.local_domains, default='localhost')}")

    def _accounts(self, mailbox: Mailbox) -> tuple[str, ...] | Reply:
        named = self._directory.expand(mailbox) if self._directory.is_local(mailbox.domain) else ()
        targets = [parse_mailbox(target) for target in named]
        if not all(self._directory.is_local(target.domain) for target in targets):
            return ELSEWHERE
        accounts = [self._directory.account_of(target) for target in targets]
        found = tuple(dict.fromkeys(account for account in accounts if account is not None))
        return found or NOBODY

    # --- data -----------------------------------------------------------------------------------------------------

    async def _data(self) -> None:
        transaction = self._transaction
        if transaction is None or not transaction.recipients:
            await self._say(BAD_SEQUENCE)
            return
        await self._say(reply(354, "", "Go on"))
        await self._writer.drain()
        self._transaction = None
        with tempfile.TemporaryFile(dir=self._server.settings.temporary) as file:
            if await self._receive(file):
                for to, accounts in transaction.recipients:
                    await self._say(await self._told(transaction, to, accounts, file))
            else:
                await self._say(*[reply(552, "5.3.4", "The message is too large")] * len(transaction.recipients))

    async def _receive(self, file: BinaryIO) -> bool:
        """Reads to the end of the data; False: it is more than there may be."""
        decoder, size = DataDecoder(), 0
        octets, self._held = self._held, b""
        while True:
            if octets:
                piece = decoder.feed(octets)
                size += len(piece)
                if size <= self._server.settings.append_limit:
                    file.write(piece)
            if decoder.done:
                self._held = decoder.rest
                return size <= self._server.settings.append_limit
            async with asyncio.timeout(DATA_S):
                octets = await self._reader.read(READ_SIZE)
            if not octets:
                raise EOFError("gone in the middle of a message")

    async def _told(self, transaction: _Transaction, to: Mailbox, accounts: Sequence[str], file: BinaryIO) -> Reply:
        """Each is answered at once: what is not said yet when this program stops comes again. So what was begun then is
        ended, and said.
        """
        storing = asyncio.ensure_future(self._store(transaction, to, accounts, file))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:
            self._writer.write((await storing).render())
            raise

    async def _store(self, transaction: _Transaction, to: Mailbox, accounts: Sequence[str], file: BinaryIO) -> Reply:
        """The first trouble, where a recipient leads to several accounts."""
        identity, now = new_id(), time.time()
        # What leads to several is tried again for all of them when one cannot take it: those who have it get it once.
        name = identity if len(accounts) == 1 else await asyncio.to_thread(_name_of, transaction, to, file)

        def pieces() -> Iterator[bytes]:
            yield trace.return_path(transaction.reverse_path) + trace.delivered_to(str(to))
            yield trace.received_by_lmtp(
                self._client, self._ip, self._server.settings.hostname, identity, str(to), now, is_tls=self._is_tls
            )
            yield from with_crlf(file)

        answer = STORED
        for account in accounts:
            try:
                await self._server.in_turn(
                    account,
                    lambda account=account: self._server.store.deliver(account, pieces, f"{name} {account}", now),  # type: ignore[misc]
                )
            except OverQuota:
                answer = FULL
            except Exception as error:  # one user's broken mailbox must not keep others' mail
                _log.error("lmtp delivery failed", session=self._id, account=account, exc_info=error)
                answer = UNAVAILABLE
            else:
                self._server.metrics.store_messages.labels("lmtp", "deliver").inc()
        return answer


def _name_of(transaction: _Transaction, to: Mailbox, file: BinaryIO) -> str:
    """The same whenever the same message comes for the same recipient."""
    digest = hashlib.sha256()
    for octets in with_crlf(file):
        digest.update(octets)
    digest.update(f"\0{transaction.reverse_path}\0{to}".encode())
    return digest.hexdigest()[:32]
