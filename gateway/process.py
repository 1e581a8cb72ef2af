"""One role's process: what it inherits, its stop event, and what all roles are made with."""

import asyncio
import ctypes
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.accounts.credentials import CredentialChecker
from gateway.accounts.directory import AccountDirectory
from gateway.accounts.srs import MAX_AGE_DAYS, SenderRewriting
from gateway.config import Config
from gateway.content.signatures import Signatures
from gateway.core.errors import ConfigError
from gateway.core.ports import Resolver
from gateway.delivery.connection import Connection
from gateway.delivery.mx import MxSettings
from gateway.delivery.pool import Pool, PoolSettings
from gateway.delivery.relay import Relay
from gateway.delivery.routes import Routes
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.net.listener import parse_address
from gateway.net.tls import KeyMaterial, ServerContexts
from gateway.policy.rules import Policy
from gateway.quarantine.links import Links
from gateway.quarantine.sender import DigestSender, DigestSettings
from gateway.queue.intake import Intake, IntakeSettings
from gateway.servers.login import LoginGuard, LoginLimits
from gateway.servers.quotas import AccountQuotas
from gateway.storage.counters import SharedCounters
from gateway.storage.quarantine_room import QuarantineLimits, QuarantineRoom
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_dkim import SqliteDkimKeys
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.storage.sqlite_state import KeepTimes
from gateway.storage.sqlite_trace import SqliteTrace
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder

HALF_LIVES = 7  # after which a count says nothing any more
DRAIN_S = 28.0  # under the supervisor's 30
ORPHAN_DRAIN_S = 2.0
LARGE_BLOCK = 4 * 1024 * 1024  # octets
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)

_log = log.get("roles")


class SystemClock:
    def now(self) -> float:
        return time.time()


def quotas_of(config: Config, accounts: SqliteAccounts) -> AccountQuotas:
    return AccountQuotas(accounts, config.store.quota, config.gateway.hostname, SystemClock().now)


@dataclass(slots=True)
class Shared:
    """What exists before the first fork and all roles inherit."""

    config: Config
    policy: Policy
    shadow: Policy | None
    counters: SharedCounters
    keys: KeyMaterial | None
    sockets: dict[str, list[socket.socket]]
    wake_read: socket.socket
    wake_write: socket.socket
    routes: Routes
    metrics_folder: Path
    signatures: Signatures
    content: socket.socket  # where the role `content` takes requests
    reloads: int = 0  # of this run, until now

    def wake_runner(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            self.wake_write.send(b"1")

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
    on_reload: Callable[[], None] = lambda: None

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


def give_back_large_blocks() -> None:
    """To the system, as soon as they are free. The C library learns to keep blocks of a size that was freed once: after
    a check of a password each thread held on to 19 MiB for ever.
    """
    with suppress(OSError, AttributeError):  # of another C library, which needs none of this
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 2 * LARGE_BLOCK)
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def watch(process: Process, alive: int) -> None:
    """SIGTERM drains; so, and faster, does the supervisor's death."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, process.stopping.set)
    loop.add_signal_handler(signal.SIGINT, process.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: process.on_reload())

    def orphaned() -> None:
        loop.remove_reader(alive)
        process.is_orphan = True
        process.stopping.set()

    loop.add_reader(alive, orphaned)


async def drain(process: Process, *parts: Awaitable[None], limit_s: float = DRAIN_S) -> None:
    limit = ORPHAN_DRAIN_S if process.is_orphan or process.exit_code else limit_s
    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*parts)
    except TimeoutError:
        _log.warning("drain was cut short", after_s=limit)


def directory_of(config: Config, accounts: SqliteAccounts) -> AccountDirectory:
    probed = [name for name, relayed in config.relay_domains.items() if relayed.recipients == "probe"]
    delimiter, routing = config.gateway.recipient_delimiter, config.gateway.sender_specified_routing
    # What is kept here goes out later with the address that it came in with.
    kept_days = int((config.quarantine.keep + config.queue.expire) // 86400)
    srs = SenderRewriting(accounts.secret("srs"), time.time, MAX_AGE_DAYS + kept_days)
    return AccountDirectory(accounts, config.domains, config.relay_domains, probed, delimiter, routing, srs)


def intake_of(config: Config, queue: SqliteQueue, directory: AccountDirectory) -> Intake:
    settings = IntakeSettings(
        config.gateway.hostname, config.queue.expire, config.forwarding.srs, config.forwarding.arc
    )
    limits = QuarantineLimits(config.quarantine.max_size, config.quarantine.max_size_by_recipient)
    room = QuarantineRoom(config.data / "queue.db", limits)
    keys = SqliteDkimKeys(config.data / "accounts.db")
    return Intake(queue, directory, settings, SystemClock(), keys, queue.spool.new, room)


def links_of(accounts: SqliteAccounts) -> Links:
    return Links(accounts.secret("quarantine links"))


def digest_sender_of(config: Config, accounts: SqliteAccounts, quarantine: SqliteQuarantine) -> DigestSender:
    at = config.quarantine.digest
    minutes = int(at[:2]) * 60 + int(at[3:]) if at else None
    settings = DigestSettings(
        config.gateway.hostname,
        config.web.url,
        minutes,
        config.quarantine.links,
        config.queue.expire,
        config.quarantine.max_size_by_recipient,
    )
    keys = SqliteDkimKeys(config.data / "accounts.db")
    directory = directory_of(config, accounts)
    links = links_of(accounts)
    return DigestSender(quarantine, links, directory, keys, settings, SystemClock(), _log_failure)


def _log_failure(what: str, error: BaseException) -> None:
    _log.error("failed", what=what, exc_info=error)


def login_of(shared: Shared, accounts: SqliteAccounts) -> LoginGuard:
    limits = shared.config.limits
    return LoginGuard(
        accounts,
        CredentialChecker(),
        shared.counters,
        LoginLimits(limits.login_failures_by_address, limits.login_failures_by_account, limits.login_window),
        shared.config.domains,
    )


def resolver_of(process: Process) -> DnsResolver:
    found, dns = process.metrics, process.shared.config.dns
    return DnsResolver(
        ResolverSettings(dns.servers, dns.validating),
        lambda rdtype, result, seconds: found.dns_seconds.labels(rdtype, result).observe(seconds),
    )


def relay_of(config: Config, resolver: Resolver, on_connected: Callable[[Connection], None]) -> Relay:
    delivery, hostname = config.delivery, config.gateway.hostname
    pool = Pool(PoolSettings(hostname, delivery.connect_timeout, delivery.source), on_connected)
    mx = MxSettings(frozenset({hostname}), _own_addresses(config), delivery.allow_private)
    return Relay(pool, resolver, mx, delivery.port)


def keep_times(config: Config) -> KeepTimes:
    checks = config.checks
    probes = max(checks.recipients.keep_existing, checks.recipients.keep_missing)
    return KeepTimes(
        checks.greylist.keep,
        checks.seen.keep,
        probes,
        checks.reputation.half_life * HALF_LIVES,
        checks.usage.keep,
    )


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
