"""Connections kept for the next message, and what is known of hosts: which are down, which nobody has reached yet.

A host that did not answer is left alone for a while, so that its mail does not tie up the deliveries of others. To a
host that has not answered yet only few connect at once; others wait a moment for their news and then give way.
"""

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from gateway.core.reply import Reply, reply
from gateway.delivery.connection import UNIX, Connection, Credentials, HostUnusable, Target, TlsMode
from gateway.net.tls import client_context

PROBES = 2  # connection attempts at once to an address that has not answered lately
PROBE_WAIT_S = 0.5  # a host whose first word takes longer is not waited for
AGAIN_S, AGAIN_SLOW_S = 1.0, 5.0
PROVEN_S = 60.0
DEAD_S = 10.0
MAX_USES = 100
IDLE_S = 5.0
MAX_IDLE = 100
MAX_KNOWN = 20_000


T = TypeVar("T")


class HostBusy(Exception):
    """Others are finding out about this host: come back after `again_in_s` seconds."""

    def __init__(self, again_in_s: float) -> None:
        super().__init__(again_in_s)
        self.again_in_s = again_in_s


@dataclass(frozen=True, slots=True)
class PoolSettings:
    hostname: str
    connect_s: float = 30.0
    source: tuple[str, ...] = ()


class Pool:
    """on_connected: told of each new connection."""

    def __init__(self, settings: PoolSettings, on_connected: Callable[[Connection], None]) -> None:
        self._settings = settings
        self._on_connected = on_connected
        self._idle: dict[Target, list[Connection]] = defaultdict(list)
        self._idle_count = 0
        self._probing: dict[tuple[str, int], list[float]] = defaultdict(list)  # when each attempt began
        self._news = asyncio.Condition()
        self._proven: dict[tuple[str, int], float] = {}
        self._dead: dict[tuple[str, int], tuple[float, Reply]] = {}
        self._contexts: dict[tuple[bool, str | None], ssl.SSLContext] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def acquire(
        self, target: Target, credentials: Credentials | None, ca_file: str | None, *, fresh: bool = False
    ) -> Connection:
        """An idle connection or a new one; fresh: a new one. Raises HostUnusable, HostBusy, LoopsBack."""
        waiting = None if fresh else self._idle.get(target)
        while waiting:
            connection = waiting.pop()
            self._idle_count -= 1
            if connection.is_alive():
                return connection
            connection.abort()
        return await self._connect(target, credentials, ca_file)

    async def _connect(self, target: Target, credentials: Credentials | None, ca_file: str | None) -> Connection:
        place = (target.address, target.port)
        self._check_dead(place)
        now = time.monotonic()
        is_probe = self._proven.get(place, 0.0) < now
        if is_probe and len(self._probing[place]) >= PROBES:
            await self._await_news(place)
            is_probe = False
        if is_probe:
            self._probing[place].append(now)
        try:
            connection = await Connection.open(
                target,
                hostname=self._settings.hostname,
                connect_s=self._settings.connect_s,
                source=self._source(target.address),
                context=self._context(target, ca_file),
                credentials=credentials,
            )
        except HostUnusable as error:
            if error.slow:
                _remember(self._dead, place, (time.monotonic() + DEAD_S, error.reply))
            # A host that others are talking to is not down: it wants fewer connections.
            error.is_down = self._proven.get(place, 0.0) < time.monotonic()
            if not error.tls and error.slow:
                self._proven.pop(place, None)
            raise
        else:
            _remember(self._proven, place, time.monotonic() + PROVEN_S)
            self._on_connected(connection)
            return connection
        finally:
            if is_probe:
                self._probing[place].remove(now)
                if not self._probing[place]:
                    del self._probing[place]
                async with self._news:
                    self._news.notify_all()

    def _check_dead(self, place: tuple[str, int]) -> None:
        until, answer = self._dead.get(place, (0.0, None))
        if answer is not None:
            if until > time.monotonic():
                raise HostUnusable(answer)
            del self._dead[place]

    async def _await_news(self, place: tuple[str, int]) -> None:
        if time.monotonic() - min(self._probing[place]) > PROBE_WAIT_S:
            raise HostBusy(AGAIN_SLOW_S)
        try:
            async with asyncio.timeout(PROBE_WAIT_S), self._news:
                await self._news.wait_for(lambda: place not in self._probing or place in self._proven)
        except TimeoutError:
            raise HostBusy(AGAIN_S) from None
        self._check_dead(place)

    def _source(self, address: str) -> str | None:
        if address.startswith(UNIX):
            return None
        family = ":" in address
        return next((source for source in self._settings.source if (":" in source) == family), None)

    def _context(self, target: Target, ca_file: str | None) -> ssl.SSLContext | None:
        if target.mode is TlsMode.NONE:
            return None
        key = (target.mode in (TlsMode.VERIFY, TlsMode.IMPLICIT), ca_file)
        if key not in self._contexts:
            self._contexts[key] = client_context(verify=key[0], cafile=ca_file)
        return self._contexts[key]

    def release(self, connection: Connection) -> None:
        """Give a connection back after a transaction."""
        if not connection.is_alive() or connection.uses >= MAX_USES or self._idle_count >= MAX_IDLE:
            self._discard(connection)
            return
        connection.idle_since = time.monotonic()
        self._idle[connection.target].append(connection)
        self._idle_count += 1
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def _discard(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(connection.quit())
        _QUITTING.add(task)
        task.add_done_callback(_QUITTING.discard)

    async def _sweep(self) -> None:
        while self._idle_count:
            await asyncio.sleep(1.0)
            limit = time.monotonic() - IDLE_S
            for target in list(self._idle):
                old = [connection for connection in self._idle[target] if connection.idle_since < limit]
                self._idle[target] = [connection for connection in self._idle[target] if connection not in old]
                self._idle_count -= len(old)
                for connection in old:
                    self._discard(connection)
                if not self._idle[target]:
                    del self._idle[target]
        self._sweeper = None

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                self._discard(connection)
        self._idle.clear()
        self._idle_count = 0
        if _QUITTING:
            await asyncio.wait(_QUITTING, timeout=3.0)


def _remember(table: dict[tuple[str, int], T], place: tuple[str, int], value: T) -> None:
    if len(table) >= MAX_KNOWN:
        table.clear()  # what is forgotten costs one more connection attempt
    table[place] = value


_QUITTING: set[asyncio.Task[None]] = set()
BUSY = reply(450, "4.4.5", "Others are connecting to this host")
