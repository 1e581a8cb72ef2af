"""The account that an IMAP session works on: the store's calls in its pool, and its errors in the session's words."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from typing import TypeVar

from gateway.core.errors import StoreError
from gateway.core.mailflags import bits_of
from gateway.imap import ports
from gateway.imap.wire import Literal
from gateway.mailbox.boxes import BoxExists, BoxStatus, NoSuchBox
from gateway.mailbox.headings import Searched
from gateway.mailbox.maildir import LATEST, with_crlf
from gateway.mailbox.quota import OverQuota
from gateway.mailbox.schema import IndexTooNew
from gateway.mailbox.store import OpenedBox
from gateway.mailbox.values import Batch, Box, Changes, Details, FlagChange
from gateway.servers.store_listener import StoreServer
from gateway.servers.watching import Waiter
from gateway.telemetry import log

T = TypeVar("T")
_log = log.get("imap")


class StoreAccount:
    """`imap.ports.Account` over the message store."""

    def __init__(self, server: StoreServer, account: str) -> None:
        self._server = server
        self._store = server.store
        self._account = self.name = account
        self.together = server.together

    async def _call(self, call: Callable[[], T]) -> T:
        try:
            return await self._server.in_turn(self._account, call)
        except NoSuchBox as error:
            raise ports.NoMailbox from error
        except BoxExists as error:
            raise ports.MailboxThere from error
        except FileNotFoundError as error:
            raise ports.Gone from error
        except OverQuota as error:
            raise ports.NoRoom from error
        except (IndexTooNew, sqlite3.Error, OSError) as error:
            _log.error("store failed", account=self._account, exc_info=error)
            raise ports.Unavailable from error
        except StoreError as error:
            raise ports.NotDone(str(error)) from error

    def _count(self, operation: str, count: int = 1) -> None:
        self._server.metrics.store_messages.labels("imap", operation).inc(count)

    # --- mailboxes ------------------------------------------------------------------------------------------------

    async def boxes(self) -> tuple[Sequence[Box], set[str]]:
        return await self._call(lambda: self._store.boxes(self._account))

    async def status(self, names: Sequence[str]) -> Sequence[BoxStatus]:
        return await self._call(lambda: self._store.status(self._account, names))

    async def subscribe(self, name: str, *, is_on: bool) -> None:
        await self._call(lambda: self._store.subscribe(self._account, name, is_on=is_on))

    async def create(self, name: str, special: str) -> Box:
        return await self._call(lambda: self._store.create(self._account, name, special))

    async def delete(self, name: str) -> None:
        await self._call(lambda: self._store.delete(self._account, name))

    async def rename(self, name: str, other: str) -> None:
        await self._call(lambda: self._store.rename(self._account, name, other))

    async def usage(self) -> tuple[int, int, int]:
        octets, messages = await self._call(lambda: self._store.usage(self._account))
        return octets, messages, self._store.limit(self._account)

    async def rest(self) -> None:
        await asyncio.sleep(0)

    def waiting(self, box: ports.Box) -> AbstractContextManager[Waiter]:
        """For whoever waits for what others do to a mailbox."""
        traces = self._store.traces(self._account, _box(box))
        return self._server.watching.waiting((self._account, box.id), traces.look)

    # --- messages -------------------------------------------------------------------------------------------------

    async def open(self, name: str, *, takes_recent: bool) -> OpenedBox:
        return await self._call(lambda: self._store.open_box(self._account, name, takes_recent=takes_recent))

    async def changes(self, box: ports.Box, since: int, *, takes_recent: bool) -> tuple[Changes, int]:
        found = await self._call(lambda: self._store.changes(self._account, box.id, since, takes_recent=takes_recent))
        if found is None:
            raise ports.Gone
        return found

    async def keywords(self, box: ports.Box) -> Mapping[int, str]:
        return await self._call(lambda: self._store.keywords(self._account, box.id))

    async def details(self, box: ports.Box, uids: Sequence[int], wanted: Collection[str]) -> Batch:
        return await self._call(lambda: self._store.reading.details(self._account, _box(box), uids, wanted))

    async def search(self, box: ports.Box, wanted: Sequence[tuple[str, str]]) -> Searched | None:
        return await self._call(lambda: self._store.reading.search(self._account, _box(box), wanted))

    async def read(self, box: ports.Box, message: ports.Details, start: int, size: int) -> bytes:
        (found,) = await self.read_many(box, [(message, start, size)])
        if found is None:
            raise ports.Gone
        return found

    async def read_many(
        self, box: ports.Box, pieces: Sequence[tuple[ports.Details, int, int]]
    ) -> Sequence[bytes | None]:
        wanted = [(_details(message), start, size) for message, start, size in pieces]
        found = await self._call(lambda: self._store.reading.read_many(self._account, _box(box), wanted))
        whole = sum(start == 0 and octets is not None for (_, start, _), octets in zip(wanted, found, strict=True))
        if whole:
            self._count("retrieve", whole)
        return found

    async def append(self, name: str, message: Literal, flags: Sequence[str], date: datetime) -> tuple[int, int]:
        bits, keywords = bits_of(flags)
        at = min(max(date.timestamp(), 0.0), LATEST)
        found = await self._call(
            lambda: self._store.append(self._account, name, with_crlf(message.file), bits, keywords, at)
        )
        self._count("append")
        return found

    async def set_flags(
        self, box: ports.Box, uids: Sequence[int], how: int, flags: Sequence[str], unchanged_since: int | None
    ) -> Sequence[int]:
        bits, keywords = bits_of(flags)
        change = FlagChange(how, bits)
        _, conflicts = await self._call(
            lambda: self._store.set_flags(self._account, _box(box), uids, change, keywords, unchanged_since)
        )
        return conflicts

    async def expunge(self, box: ports.Box, uids: Iterable[int] | None) -> None:
        count = await self._call(lambda: self._store.expunge_deleted(self._account, _box(box), uids))
        self._count("delete", count)

    async def copy(
        self, box: ports.Box, uids: Sequence[int], target: str, *, moves: bool
    ) -> tuple[int, Sequence[tuple[int, int]]]:
        found = await self._call(lambda: self._store.copy(self._account, _box(box), uids, target, moves=moves))
        self._count("move" if moves else "copy", len(found[1]))
        with suppress(ports.Gone, ports.NoMailbox, ports.Unavailable, ports.NotDone):  # what was moved stays moved
            made = [uid for _, uid in found[1]]
            await self._call(lambda: self._server.junk.copied(self._account, _box(box), target, made))
        return found


def _box(box: ports.Box) -> Box:
    if not isinstance(box, Box):
        raise TypeError("a mailbox of another store")
    return box


def _details(message: ports.Details) -> Details:
    if not isinstance(message, Details):
        raise TypeError("details of another store")
    return message
