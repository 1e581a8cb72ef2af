"""The role that looks after things: metrics and health, upkeep, digests of what is kept, and the pages for users."""

import asyncio
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.process import Process, Shared, digest_sender_of, drain, keep_times
from gateway.queue.store import Filter, State
from gateway.reload import read_outcome
from gateway.role_smtp import SMTP_LISTENERS
from gateway.servers.metrics import MetricsServer
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.storage.sqlite_state import SqliteState
from gateway.telemetry import log, metrics

UPKEEP_S = 5.0
PRUNE_S = 600.0
AGAIN_S = 60.0  # after digests that failed

_log = log.get("roles")


class Server(Protocol):
    async def drain(self) -> None: ...


ServePages = Callable[[Process, SqliteAccounts, SqliteQuarantine], Server]


async def run_admin(process: Process, serve_pages: ServePages | None = None) -> None:
    """serve_pages: where there are pages for users."""
    shared, config = process.shared, process.shared.config
    spool = Spool(config.data / "spool")
    desk = QueueDesk(config.data / "queue.db", spool)
    state = SqliteState(config.data / "state.db")
    quarantine = SqliteQuarantine(config.data / "queue.db", spool)
    accounts = SqliteAccounts(config.data / "accounts.db")

    async def measure() -> None:
        counts, oldest = await asyncio.to_thread(desk.counts)
        process.metrics.quarantine_messages.set(counts.pop(State.QUARANTINED))
        process.metrics.quarantine_bytes.set(await asyncio.to_thread(quarantine.size))
        for state, count in counts.items():
            process.metrics.queue_messages.labels(state).set(count)
        process.metrics.queue_oldest.set(oldest)
        if shared.keys is not None:
            expiry = shared.keys.expiry()
            process.metrics.certificate_expiry.labels(config.gateway.hostname).set(expiry - time.time())

    async def show_metrics() -> tuple[int, str, bytes]:
        await measure()
        body = await asyncio.to_thread(metrics.exposition, shared.metrics_folder)
        return 200, "text/plain; version=0.0.4; charset=utf-8", body

    async def healthz() -> tuple[int, str, bytes]:
        return 200, "text/plain", b"ok\n"

    async def readyz() -> tuple[int, str, bytes]:
        trouble = await asyncio.to_thread(_readiness, shared)
        return (503, "text/plain", f"{trouble}\n".encode()) if trouble else (200, "text/plain", b"ready\n")

    server: Server = MetricsServer(
        {"/metrics": show_metrics, "/healthz": healthz, "/readyz": readyz}, shared.sockets.get("metrics", [])
    )

    def reloaded() -> None:
        outcome = read_outcome(config.data)
        process.metrics.policy_reloads.labels("applied" if outcome is not None and outcome.ok else "refused").inc()

    process.on_reload = reloaded
    upkeep = asyncio.create_task(_upkeep(process, desk, quarantine, state, measure))
    digests = asyncio.create_task(_digests(process, accounts, quarantine))
    servers = [server, *([serve_pages(process, accounts, quarantine)] if serve_pages is not None else [])]
    await process.stopping.wait()
    upkeep.cancel()
    digests.cancel()
    await drain(process, *(each.drain() for each in servers))
    for store in (desk, state, quarantine):
        await asyncio.to_thread(store.close)


async def _upkeep(
    process: Process,
    desk: QueueDesk,
    quarantine: SqliteQuarantine,
    state: SqliteState,
    measure: Callable[[], Awaitable[None]],
) -> None:
    config, due = process.shared.config, 0.0
    spool = Spool(config.data / "spool")
    while True:
        try:
            if time.monotonic() >= due:
                due = time.monotonic() + PRUNE_S
                await asyncio.to_thread(process.trace.prune, config.trace.keep, config.trace.max_size)
                await asyncio.to_thread(state.prune, keep_times(config))
                over = Filter(state=State.QUARANTINED, older_than=config.quarantine.keep)
                await asyncio.to_thread(desk.delete, over)
                await asyncio.to_thread(quarantine.prune)
                await asyncio.to_thread(lambda: spool.sweep(desk.blob_names(), all_ages=False))
            await measure()
        except Exception as error:
            _log.error("upkeep failed", exc_info=error)
        await asyncio.sleep(UPKEEP_S)


async def _digests(process: Process, accounts: SqliteAccounts, quarantine: SqliteQuarantine) -> None:
    sender = digest_sender_of(process.shared.config, accounts, quarantine)
    while True:
        try:
            count = await asyncio.to_thread(sender.send_if_due)
            if count:
                _log.info("digests sent", count=count)
                process.metrics.quarantine_digests.inc(count)
                process.shared.wake_runner()
        except Exception as error:
            _log.error("digests failed", exc_info=error)
            await asyncio.sleep(AGAIN_S)
        await asyncio.sleep(UPKEEP_S)


def _readiness(shared: Shared) -> str:
    """What keeps the gateway from taking mail, or nothing."""
    data = shared.config.data
    if shutil.disk_usage(data).free < shared.config.limits.free_space:
        return "free space is below limits.free_space"
    for name in SMTP_LISTENERS:
        for listening in shared.sockets.get(name, []):
            host, port = listening.getsockname()[:2]
            try:
                with socket.create_connection((_reachable(host), port), timeout=2.0) as probe:
                    if name == "smtp" and not probe.recv(4).startswith(b"2"):
                        return f"{name} does not greet"
            except OSError as error:
                return f"{name} does not answer: {error.strerror or error}"
    return ""


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
