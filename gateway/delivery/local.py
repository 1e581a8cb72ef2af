"""Delivery into the embedded store: Return-Path and Delivered-To in front, then the message as it is."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox
from gateway.core.outcome import Deferred, Delivered, Failed, Outcome
from gateway.core.reply import reply
from gateway.delivery.relay import Delivery
from gateway.mailbox.quota import OverQuota
from gateway.mailbox.store import MessageStore
from gateway.mailbox.turns import Turns
from gateway.message import trace

STORED = reply(250, "2.1.5", "Delivered")
NOBODY = reply(550, "5.1.1", "No such mailbox here")
FULL = reply(452, "4.2.2", "The mailbox is full")
UNAVAILABLE = reply(451, "4.3.0", "The mailbox cannot take it now")
THREADS = 4


class LocalDelivery:
    """on_error: told of exceptions, which never reach the sender's DSN; called in another thread."""

    def __init__(
        self, store: MessageStore, directory: AccountDirectory, on_error: Callable[[str, BaseException], None]
    ) -> None:
        self._store = store
        self._on_error = on_error
        self._directory = directory
        self._turns = Turns()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    async def deliver(self, delivery: Delivery, queue_id: str, created: float) -> list[Outcome]:
        """Outcomes in the order of the recipients."""
        return [await self._in_turn(delivery, mailbox, queue_id, created) for mailbox, _, _ in delivery.recipients]

    async def _in_turn(self, delivery: Delivery, mailbox: Mailbox, queue_id: str, created: float) -> Outcome:
        async with self._turns.of(str(mailbox)):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._store_one, delivery, mailbox, queue_id, created)

    def _store_one(self, delivery: Delivery, mailbox: Mailbox, queue_id: str, created: float) -> Outcome:
        account = self._directory.account_of(mailbox)
        if account is None:
            return Failed(NOBODY)

        def pieces() -> Iterator[bytes]:
            yield trace.return_path(delivery.reverse_path) + trace.delivered_to(str(mailbox))
            yield from delivery.pieces()

        delivery_id = hashlib.sha256(f"{queue_id} {mailbox}".encode()).hexdigest()[:32]
        try:
            self._store.deliver(account, pieces, delivery_id, created)
        except OverQuota:
            return Deferred(FULL)
        except Exception as error:  # one user's broken mailbox must not keep others' mail
            self._on_error(f"store {account}", error)
            return Deferred(UNAVAILABLE)
        return Delivered(STORED)
