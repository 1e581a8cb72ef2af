"""IMAP sessions over a real store without sockets: octets of a command in, all that is answered out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.imap.parser import parse_command
from gateway.imap.session import ImapSession
from gateway.imap.syntax import BadCommand
from gateway.imap.wire import Bounds, CommandReader, Continue, RawCommand
from gateway.servers.imap_account import StoreAccount
from gateway.servers.junk import JunkLessons
from gateway.servers.store_listener import StoreServer, StoreSettings
from gateway.servers.summarised import open_store
from gateway.telemetry.metrics import Metrics

ALICE = "alice@example.org"


def store_server(folder: Path) -> StoreServer:
    """Nobody signs in here."""
    (folder / "mail").mkdir(exist_ok=True)
    (folder / "metrics").mkdir(exist_ok=True)
    nothing: Any = None
    store = open_store(folder / "mail")
    return StoreServer(
        StoreSettings("gateway.test", 10, 10, 1_000_000, folder / "mail"), store, nothing, nothing,
        Metrics(folder / "metrics", "test-0"), nothing, ThreadPoolExecutor(2), JunkLessons(store, nothing, None),
    )  # fmt: skip


class Talk:
    """One session, signed in."""

    def __init__(self, server: StoreServer, account: str = ALICE) -> None:
        self._out: list[bytes] = []
        self._count = 0
        self.session = ImapSession(StoreAccount(server, account), self, 1_000_000)

    async def send(self, octets: bytes) -> None:
        self._out.append(octets)

    async def run(self, command: str | bytes) -> bytes:
        """command: without its tag and line end; literals stand in it whole. Untagged and tagged responses."""
        self._count += 1
        octets = command.encode() if isinstance(command, str) else command
        reader = CommandReader(Bounds(1_000_000, lambda _: 1_000_000))
        reader.feed(b"t%d %b\r\n" % (self._count, octets))
        while isinstance(raw := reader.next(), Continue):
            pass
        assert isinstance(raw, RawCommand), raw
        await self.session.run(parse_command(raw, is_utf8=self.session.is_utf8))
        answer, self._out = b"".join(self._out), []
        return answer.replace(b"t%d " % self._count, b"t ")

    def ask(self, command: str | bytes) -> bytes:
        return asyncio.run(self.run(command))

    def ask_or_bad(self, command: str) -> bytes:
        """As the driver answers what is no command."""
        try:
            return self.ask(command)
        except BadCommand as error:
            return f"t BAD {error}".encode()

    async def news(self) -> bytes:
        await self.session.idle_news()
        answer, self._out = b"".join(self._out), []
        return answer


def literal(octets: bytes) -> bytes:
    return b"{%d+}\r\n%b" % (len(octets), octets)
