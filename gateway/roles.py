"""The bodies of the roles queue, store and admin: what each is made of and how it drains. Started by `app`."""

import asyncio
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.delivery.connection import Connection, TlsMode
from gateway.delivery.local import LocalDelivery
from gateway.mailbox.store import MessageStore
from gateway.observe import QueueObserver
from gateway.process import (
    Process,
    Shared,
    SystemClock,
    directory_of,
    drain,
    keep_times,
    login_of,
    relay_of,
    resolver_of,
)
from gateway.queue.runner import Runner, RunnerSettings
from gateway.queue.schedule import RetryPlan
from gateway.queue.store import Filter, State
from gateway.reload import read_outcome
from gateway.role_smtp import SMTP_LISTENERS
from gateway.servers.metrics import MetricsServer
from gateway.servers.pop3 import Pop3Listener, Pop3Settings
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_dkim import SqliteDkimKeys
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.storage.sqlite_state import SqliteState
from gateway.telemetry import log, metrics

POP3_LISTENERS = ("pop3", "pop3s")
QUEUE_DRAIN_S = 10.0
UPKEEP_S = 5.0
PRUNE_S = 600.0

# As smarthost_tls_total{policy} calls them; a connection in clear is not counted there.
_TLS_POLICIES = {
    TlsMode.MAY: "may",
    TlsMode.ENCRYPT: "encrypt",
    TlsMode.VERIFY: "verify",
    TlsMode.IMPLICIT: "verify",
}
_log = log.get("roles")


async def run_queue(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    accounts = SqliteAccounts(config.data / "accounts.db")
    directory = directory_of(config, accounts)
    loop = asyncio.get_running_loop()
    queue = SqliteQueue(
        config.data / "queue.db",
        Spool(config.data / "spool"),
        owner="queue-0",
        on_broken=process.fail_from_thread,
        on_set_aside=lambda reason: _log.error("queue row set aside", reason=reason),
    )
    store = MessageStore(config.data / "mail")
    found = process.metrics

    def connected(connection: Connection) -> None:
        if connection.tls_version:
            found.tls.labels("out", connection.tls_version, _TLS_POLICIES[connection.target.mode]).inc()

    relay = relay_of(config, resolver_of(process), connected)
    plan = RetryPlan(config.queue.retry, config.queue.expire, config.queue.warn_after)
    runner = Runner(
        queue,
        shared.routes,
        relay,
        LocalDelivery(store, directory, lambda what, error: _log.error("delivery failed", what=what, exc_info=error)),
        directory,
        RunnerSettings(config.gateway.hostname, plan, config.delivery.concurrency),
        QueueObserver(process.metrics, process.recorder),
        SystemClock(),
        SqliteDkimKeys(config.data / "accounts.db"),
    )

    def woken() -> None:
        with suppress(BlockingIOError):
            while shared.wake_read.recv(64):
                pass
        runner.wake()

    loop.add_reader(shared.wake_read.fileno(), woken)
    running = asyncio.create_task(runner.run())
    stopping = asyncio.create_task(process.stopping.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    runner.stop()
    # Deliveries that still wait for a silent host are cut: their leases are void when the role starts again.
    await drain(process, running, limit_s=QUEUE_DRAIN_S)
    await relay.close()
    if not process.exit_code:
        await asyncio.to_thread(queue.close)


async def run_store(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    accounts = SqliteAccounts(config.data / "accounts.db")
    store = MessageStore(config.data / "mail")
    process.metrics.reset_gauges(POP3_LISTENERS)
    limits = config.limits
    settings = Pop3Settings(config.gateway.hostname, limits.connections, limits.connections_by_address)
    login = login_of(shared, accounts)
    listeners = [
        Pop3Listener(
            name, settings, store, login, shared.counters, process.metrics, shared.contexts(), shared.sockets[name]
        )
        for name in POP3_LISTENERS
        if shared.sockets.get(name)
    ]
    await process.stopping.wait()
    await drain(process, *(listener.drain() for listener in listeners))


async def run_admin(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    spool = Spool(config.data / "spool")
    desk = QueueDesk(config.data / "queue.db", spool)
    state = SqliteState(config.data / "state.db")

    async def measure() -> None:
        counts, oldest = await asyncio.to_thread(desk.counts)
        process.metrics.quarantine_messages.set(counts.pop(State.QUARANTINED))
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

    server = MetricsServer(
        {"/metrics": show_metrics, "/healthz": healthz, "/readyz": readyz}, shared.sockets.get("metrics", [])
    )

    def reloaded() -> None:
        outcome = read_outcome(config.data)
        process.metrics.policy_reloads.labels("applied" if outcome is not None and outcome.ok else "refused").inc()

    process.on_reload = reloaded
    upkeep = asyncio.create_task(_upkeep(process, desk, spool, state, measure))
    await process.stopping.wait()
    upkeep.cancel()
    await drain(process, server.drain())
    await asyncio.to_thread(desk.close)
    await asyncio.to_thread(state.close)


async def _upkeep(
    process: Process, desk: QueueDesk, spool: Spool, state: SqliteState, measure: Callable[[], Awaitable[None]]
) -> None:
    config, due = process.shared.config, 0.0
    while True:
        try:
            if time.monotonic() >= due:
                due = time.monotonic() + PRUNE_S
                await asyncio.to_thread(process.trace.prune, config.trace.keep, config.trace.max_size)
                await asyncio.to_thread(state.prune, keep_times(config))
                over = Filter(state=State.QUARANTINED, older_than=config.quarantine.keep)
                await asyncio.to_thread(desk.delete, over)
                await asyncio.to_thread(lambda: spool.sweep(desk.blob_names(), all_ages=False))
            await measure()
        except Exception as error:
            _log.error("upkeep failed", exc_info=error)
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
