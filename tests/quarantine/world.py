"""Quarantine with its stores in a folder, a clock that is moved by hand, and no gateway around."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gateway.accounts.choices import Choices
from gateway.accounts.directory import AccountDirectory
from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.ident import new_id
from gateway.message.blob import MemoryBlob
from gateway.policy.context import MessageFacts
from gateway.quarantine.links import Link, LinkAction, LinkDesk, Links
from gateway.quarantine.release import Releaser, ReleaseSettings, Scanned
from gateway.quarantine.sender import DigestSender, DigestSettings
from gateway.quarantine.store import Request
from gateway.queue.intake import Intake, IntakeSettings
from gateway.queue.store import Filter, NewMessage, NewRecipient, State
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.storage.sqlite_queue import SqliteQueue
from tests.support.fakes import FakeClock, FakeKeys

ALICE, BOB = "alice@example.org", "bob@example.org"
CAREFUL = ReleaseSettings()


@dataclass
class Seen:
    """`quarantine.release.Observer`."""

    results: list[tuple[str, str, str]] = field(default_factory=list)  # queue id, result, reason
    errors: list[BaseException] = field(default_factory=list)

    def settled(self, request: Request, result: str, queue_id: str, reason: str) -> None:
        self.results.append((request.queue_id, result, reason))

    def failed(self, what: str, error: BaseException) -> None:
        self.errors.append(error)


class AnyRoom:
    async def check(self, messages: object) -> None: ...


class World:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "queue.db"
        self.spool = Spool(folder / "spool")
        self.queue = SqliteQueue(self.path, self.spool, owner="queue-0")
        self.store = SqliteQuarantine(self.path, self.spool)
        self.desk = QueueDesk(self.path, self.spool)
        self.accounts = SqliteAccounts(folder / "accounts.db")
        for address in (ALICE, BOB):
            self.accounts.add(address, "hash")
        self.directory = AccountDirectory(self.accounts, ["example.org"], ["relay.test"])
        self.clock = FakeClock(time.time())
        self.links = Links(b"s" * 32)
        self.choices = Choices(self.directory, self.accounts)
        self.link_desk = LinkDesk(self.links, self.store, self.choices, self.clock)
        self.seen = Seen()
        self.failures: list[str] = []

    def sender(self, store: SqliteQuarantine | None = None) -> DigestSender:
        settings = DigestSettings("gw.test", "https://m.test", 0, 7 * 86400, 86400, 10**6)
        return DigestSender(
            store or self.store, self.links, self.directory, FakeKeys(), settings, self.clock,
            lambda what, error: self.failures.append(what),
        )  # fmt: skip

    def releaser(
        self, scan: Callable[[MessageFacts], Awaitable[Scanned]], settings: ReleaseSettings = CAREFUL
    ) -> Releaser:
        intake = Intake(
            self.queue, self.directory, IntakeSettings("gw.test", 1e5), self.clock, FakeKeys(), self.spool.new,
            AnyRoom(),
        )  # fmt: skip
        return Releaser(self.store, intake, scan, settings, self.seen, self.clock, lambda: None)

    def put(self, *to: str, subject: str = "s", author: str = "pest@pest.test", is_self_released: bool = True) -> str:
        """A quarantined message; its queue id."""
        queue_id, now = new_id(), time.time()
        info = {"kept_by": "spam", **({"self_release": "yes"} if is_self_released else {})}
        message = NewMessage(
            queue_id=queue_id,
            created=now,
            expires=now + 9e5,
            reverse_path=path_or_null(author if author.isascii() else ""),
            recipients=tuple(NewRecipient(parse_mailbox(each)) for each in to or (ALICE,)),
            header=b"Received: x\r\n",
            blob=MemoryBlob(f"From: <{author}>\r\nSubject: {subject}\r\n\r\nbody\r\n".encode()),
            info=info,
            state=State.QUARANTINED,
        )
        asyncio.run(self.queue.enqueue(message))
        return queue_id

    def ask(self, queue_id: str, by: str = "postmaster", *, is_despite: bool = False) -> None:
        self.store.ask(Filter(queue_id=queue_id, state=State.QUARANTINED), by, is_despite=is_despite)

    def delete(self, queue_id: str) -> None:
        self.desk.delete(Filter(queue_id=queue_id, state=State.QUARANTINED))

    def sql(self, text: str, *values: object) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(text, values).fetchall()

    def token(self, action: LinkAction, queue_id: str) -> str:
        ((row,),) = self.sql(
            "SELECT recipient.id FROM recipient JOIN message ON message.id = message WHERE queue_id = ?", queue_id
        )
        assert isinstance(row, int)
        return self.links.token(Link(action, row, queue_id, time.time() + 99_999))

    def released(self) -> list[str]:
        """Whom something goes on to, but for digests."""
        rows = self.sql(
            "SELECT forward_path FROM recipient JOIN message ON message.id = message"
            " WHERE state = 0 AND json_extract(info, '$.kind') IS NULL"
        )
        return [str(address) for (address,) in rows]

    def digests(self) -> list[str]:
        """Whom digests go to."""
        rows = self.sql(
            "SELECT forward_path FROM recipient JOIN message ON message.id = message"
            " WHERE json_extract(info, '$.kind') = 'digest' ORDER BY recipient.id"
        )
        return [str(address) for (address,) in rows]

    def close(self) -> None:
        self.queue.close()
        self.store.close()
        self.desk.close()
        self.accounts.close()
        self.spool.pool.shutdown()
