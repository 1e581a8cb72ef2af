"""The bodies of the roles: what each process is made of and how it drains. Composed here, started by `app`."""

import asyncio
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from gateway.accounts.credentials import CredentialChecker
from gateway.accounts.directory import AccountDirectory
from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.delivery.connection import Connection, TlsMode
from gateway.delivery.local import LocalDelivery
from gateway.delivery.mx import MxSettings
from gateway.delivery.pool import Pool, PoolSettings
from gateway.delivery.relay import Relay
from gateway.delivery.routes import Routes
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.mailbox.store import MessageStore
from gateway.net.listener import parse_address
from gateway.net.tls import KeyMaterial, ServerContexts
from gateway.observe import QueueObserver
from gateway.policy.lists import NetworkSet
from gateway.policy.rules import Policy
from gateway.queue.intake import Intake, IntakeSettings
from gateway.queue.runner import Runner, RunnerSettings
from gateway.queue.schedule import RetryPlan
from gateway.queue.store import Filter, State
from gateway.servers.login import LoginGuard, LoginLimits
from gateway.servers.metrics import MetricsServer
from gateway.servers.pop3 import Pop3Listener, Pop3Settings
from gateway.servers.smtp import SmtpService, SmtpSettings
from gateway.servers.smtp_judge import NoSource
from gateway.servers.smtp_listener import ListenerSettings, SmtpListener
from gateway.smtp.handler import ServerSettings
from gateway.storage.counters import SharedCounters
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.storage.sqlite_trace import SqliteTrace
from gateway.telemetry import log, metrics
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder

SMTP_LISTENERS = ("smtp", "submission", "submissions")
POP3_LISTENERS = ("pop3", "pop3s")
DRAIN_S = 28.0  # under the supervisor's 30
QUEUE_DRAIN_S = 10.0
ORPHAN_DRAIN_S = 2.0
UPKEEP_S = 5.0
PRUNE_S = 600.0

_log = log.get("roles")


class SystemClock:
    def now(self) -> float:
        return time.time()


@dataclass(slots=True)
class Shared:
    """What exists before the first fork and all roles inherit."""

    config: Config
    policy: Policy
    counters: SharedCounters
    keys: KeyMaterial | None
    sockets: dict[str, list[socket.socket]]
    wake_read: socket.socket
    wake_write: socket.socket
    routes: Routes
    metrics_folder: Path

    def contexts(self) -> Callable[[], ssl.SSLContext]:
        if self.keys is None:
            raise ConfigError("tls: no certificate")
        return ServerContexts(self.keys).current


@dataclass(slots=True)
class Process:
    """One role's process: its loop's stop event and what to close."""

    shared: Shared
    metrics: Metrics
    recorder: Recorder
    trace: SqliteTrace
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    is_orphan: bool = False
    exit_code: int = 0

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def fail_from_thread(self) -> None:
        self.loop.call_soon_threadsafe(self.fail)

    def fail(self) -> None:
        """The storage is broken: end with an error, so that the supervisor starts this role afresh."""
        self.exit_code = 1
        self.stopping.set()


def new_process(shared: Shared, name: str) -> Process:
    found = Metrics(shared.metrics_folder, name)
    trace = SqliteTrace(shared.config.data / "trace.db")
    recorder = Recorder(trace, lambda count: found.trace_dropped.inc(count))
    return Process(shared, found, recorder, trace)


def watch(process: Process, alive: int) -> None:
    """SIGTERM drains; so, and faster, does the supervisor's death."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, process.stopping.set)
    loop.add_signal_handler(signal.SIGINT, process.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)

    def orphaned() -> None:
        loop.remove_reader(alive)
        process.is_orphan = True
        process.stopping.set()

    loop.add_reader(alive, orphaned)


async def _drain(process: Process, *parts: Awaitable[None], limit_s: float = DRAIN_S) -> None:
    limit = ORPHAN_DRAIN_S if process.is_orphan or process.exit_code else limit_s
    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*parts)
    except TimeoutError:
        _log.warning("drain was cut short", after_s=limit)


def _directory(config: Config, accounts: SqliteAccounts) -> AccountDirectory:
    return AccountDirectory(accounts, config.domains, config.relay_domains)


def _login(shared: Shared, accounts: SqliteAccounts) -> LoginGuard:
    limits = shared.config.limits
    return LoginGuard(
        accounts,
        CredentialChecker(),
        shared.counters,
        LoginLimits(limits.login_failures_by_address, limits.login_failures_by_account, limits.login_window),
        shared.config.domains,
    )


async def run_smtp(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    limits = config.limits
    accounts = SqliteAccounts(config.data / "accounts.db")
    directory = _directory(config, accounts)
    spool = Spool(config.data / "spool", reserve=limits.free_space)
    slot = shared.counters.slot
    queue = SqliteQueue(config.data / "queue.db", spool, owner=f"smtp-{slot}", on_broken=process.fail_from_thread)
    intake = Intake(queue, directory, IntakeSettings(config.gateway.hostname, config.queue.expire), SystemClock())

    def wake_runner() -> None:
        with suppress(BlockingIOError, ConnectionError):
            shared.wake_write.send(b"1")

    trusted = _networks(config.networks.trusted)
    service = SmtpService(
        settings=SmtpSettings(
            config.gateway.hostname, config.policy.answer == "early", limits.hops, limits.message_stage
        ),
        policy=shared.policy,
        source=NoSource(),
        directory=directory,
        intake=intake,
        login=_login(shared, accounts),
        trusted=trusted,
        counters=shared.counters,
        metrics=process.metrics,
        recorder=process.recorder,
        new_content=spool.new,
        has_room=spool.has_room,
        wake_runner=wake_runner,
        on_broken=process.fail,
    )
    process.metrics.reset_gauges(SMTP_LISTENERS)
    protocol = ServerSettings(
        config.gateway.hostname, limits.size, limits.line, limits.recipients, limits.commands, limits.errors,
        limits.messages, limits.idle, limits.data,
    )  # fmt: skip
    listeners = [
        SmtpListener(
            ListenerSettings(
                name, limits.connections, limits.connections_by_address, _networks(config.listen.proxy_from),
                _networks(config.listen.xclient_from), trusted, _networks(limits.repair_bare_lf_from),
            ),
            protocol, service, shared.contexts() if shared.keys is not None else None, shared.sockets[name],
        )
        for name in SMTP_LISTENERS
        if shared.sockets.get(name)
    ]  # fmt: skip
    await process.stopping.wait()
    await _drain(process, *(listener.drain() for listener in listeners))
    if not process.exit_code:
        await asyncio.to_thread(queue.close)


async def run_queue(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    accounts = SqliteAccounts(config.data / "accounts.db")
    directory = _directory(config, accounts)
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
    resolver = DnsResolver(
        ResolverSettings(config.dns.servers),
        lambda rdtype, result, seconds: found.dns_seconds.labels(rdtype, result).observe(seconds),
    )

    def connected(connection: Connection) -> None:
        if connection.tls_version:
            policy = "verify" if connection.target.mode in (TlsMode.VERIFY, TlsMode.IMPLICIT) else "may"
            found.tls.labels("out", connection.tls_version, policy).inc()

    delivery = config.delivery
    pool = Pool(PoolSettings(config.gateway.hostname, delivery.connect_timeout, delivery.source), connected)
    mx = MxSettings(frozenset({config.gateway.hostname}), _own_addresses(config), config.delivery.allow_private)
    plan = RetryPlan(config.queue.retry, config.queue.expire, config.queue.warn_after)
    runner = Runner(
        queue,
        shared.routes,
        Relay(pool, resolver, mx, config.delivery.port),
        LocalDelivery(store, directory, lambda what, error: _log.error("delivery failed", what=what, exc_info=error)),
        directory,
        RunnerSettings(config.gateway.hostname, plan, config.delivery.concurrency),
        QueueObserver(process.metrics, process.recorder),
        SystemClock(),
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
    await _drain(process, running, limit_s=QUEUE_DRAIN_S)
    await pool.close()
    if not process.exit_code:
        await asyncio.to_thread(queue.close)


async def run_store(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    accounts = SqliteAccounts(config.data / "accounts.db")
    store = MessageStore(config.data / "mail")
    process.metrics.reset_gauges(POP3_LISTENERS)
    limits = config.limits
    settings = Pop3Settings(config.gateway.hostname, limits.connections, limits.connections_by_address)
    login = _login(shared, accounts)
    listeners = [
        Pop3Listener(
            name, settings, store, login, shared.counters, process.metrics, shared.contexts(), shared.sockets[name]
        )
        for name in POP3_LISTENERS
        if shared.sockets.get(name)
    ]
    await process.stopping.wait()
    await _drain(process, *(listener.drain() for listener in listeners))


async def run_admin(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    spool = Spool(config.data / "spool")
    desk = QueueDesk(config.data / "queue.db", spool)

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
    upkeep = asyncio.create_task(_upkeep(process, desk, spool, measure))
    await process.stopping.wait()
    upkeep.cancel()
    await _drain(process, server.drain())
    await asyncio.to_thread(desk.close)


async def _upkeep(process: Process, desk: QueueDesk, spool: Spool, measure: Callable[[], Awaitable[None]]) -> None:
    config, due = process.shared.config, 0.0
    while True:
        try:
            if time.monotonic() >= due:
                due = time.monotonic() + PRUNE_S
                await asyncio.to_thread(process.trace.prune, config.trace.keep, config.trace.max_size)
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


def _networks(texts: Iterable[str]) -> NetworkSet:
    return NetworkSet([ip_network(text) for text in texts])


def _own_addresses(config: Config) -> frozenset[str]:
    """Addresses that our port-25 listeners answer on, where the remote port is theirs too: mail sent there comes
    back.
    """
    found = set()
    for text in config.listen.smtp:
        host, port = parse_address(text)
        if port == config.delivery.port and host not in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
            found.add(host)
    return frozenset(found)
