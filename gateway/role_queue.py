"""The role that has mail delivered, and lets go what is released: what it is made of and how it drains."""

import asyncio
from contextlib import suppress

from gateway.delivery.connection import Connection, TlsMode
from gateway.delivery.local import LocalDelivery
from gateway.observe import QueueObserver, ReleaseObserver
from gateway.process import Process, SystemClock, directory_of, drain, intake_of, quotas_of, relay_of, resolver_of
from gateway.quarantine.release import Releaser, ReleaseSettings
from gateway.queue.runner import Runner, RunnerSettings
from gateway.queue.schedule import RetryPlan
from gateway.role_checks import Scanner
from gateway.servers.summarised import open_store
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_dkim import SqliteDkimKeys
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.telemetry import log

QUEUE_DRAIN_S = 10.0
SCAN_GRACE_S = 15.0  # beyond what the engines have

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
    store = open_store(config.data / "mail", quotas_of(config, accounts))
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

    quarantine = SqliteQuarantine(config.data / "queue.db", queue.spool)
    scanner = Scanner(process)
    releaser = Releaser(
        quarantine,
        intake_of(config, queue, directory),
        scanner,
        ReleaseSettings(
            config.checks.antivirus.on_error == "skip",
            max(config.checks.antivirus.timeout, config.checks.content.timeout) + SCAN_GRACE_S,
        ),
        ReleaseObserver(process.metrics, process.recorder),
        SystemClock(),
        runner.wake,
    )

    def woken() -> None:
        with suppress(BlockingIOError):
            while shared.wake_read.recv(64):
                pass
        runner.wake()

    loop.add_reader(shared.wake_read.fileno(), woken)
    running = asyncio.create_task(runner.run())
    stopping = asyncio.create_task(process.stopping.wait())
    releasing = asyncio.create_task(releaser.run())
    await asyncio.wait({running, stopping, releasing}, return_when=asyncio.FIRST_COMPLETED)
    releasing.cancel()
    runner.stop()
    # Deliveries that still wait for a silent host are cut: their leases are void when the role starts again.
    await drain(process, running, limit_s=QUEUE_DRAIN_S)
    await relay.close()
    scanner.close()
    if not process.exit_code:
        await asyncio.to_thread(queue.close)
        await asyncio.to_thread(quarantine.close)
