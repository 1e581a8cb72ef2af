"""The composition root: from a Config to running roles. Here, and nowhere else, rooms meet their settings and each
other.
"""

import os
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import uvloop

from gateway.config import Config, NextHop, Route, parse_next_hop
from gateway.core.errors import ConfigError
from gateway.delivery.routes import FixedHost, Routes
from gateway.message.header import load_charsets
from gateway.net.listener import bind
from gateway.net.tls import KeyMaterial, TlsSettings
from gateway.policy_folder import applied_policy, engines_of, shadow_policy, signatures_of
from gateway.process import Process, Shared, give_back_large_blocks, new_process, watch
from gateway.reload import Reloader, forget, read_outcome
from gateway.role_admin import run_admin
from gateway.role_lessons import serve_lessons
from gateway.role_queue import run_queue
from gateway.role_smtp import SMTP_LISTENERS, run_smtp
from gateway.role_store import STORE_LISTENERS, run_store
from gateway.servers import content
from gateway.spam.filter import SpamFilter
from gateway.storage.counters import MAX_SLOTS, SharedCounters
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_state import SqliteState
from gateway.storage.sqlite_trace import SqliteTrace
from gateway.supervisor import Role, Supervisor, find_identity, lock_data, own_data
from gateway.telemetry import log, metrics

ROLES = ("smtp", "queue", "store", "admin")
QUEUE_SLOT, STORE_SLOT, ADMIN_SLOT, CONTENT_SLOT = MAX_SLOTS - 1, MAX_SLOTS - 2, MAX_SLOTS - 3, MAX_SLOTS - 4
MAX_CONTENT = 4  # processes that look into messages

_log = log.get("app")


def run_gateway(config: Config, roles: Iterable[str] = ROLES) -> int:
    """Everything, in the foreground, until a signal. Raises ConfigError before anything listens."""
    log.configure()
    load_charsets()
    identity = find_identity(config.gateway.user)
    own_data(config.data, identity)
    lock_data(config.data, identity)
    folder = metrics.prepare(config.data)
    if identity is not None:
        os.chown(folder, identity.uid, identity.gid)
    shared = _shared(config, set(roles), folder)
    supervisor = Supervisor(
        _roles(shared, set(roles)),
        identity,
        on_death=shared.counters.drop_slot,
        on_tick=lambda: tick(),
        on_reload=lambda: reloader.reload(),
    )
    reloader = Reloader(shared, supervisor.run_once)
    tick = _ticker(shared, reloader)
    supervisor.run_once(lambda: prepare_data(config))
    _log.info("started", hostname=config.gateway.hostname, pid=os.getpid(), listen=_addresses(shared))
    _log.info("antivirus", engines=engines_of(config, shared.signatures))
    try:
        return supervisor.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare_data(config: Config) -> None:
    """As the service's user, before any listener opens: schemas, migrations, orphaned spool files."""
    spool = Spool(config.data / "spool")
    spool.prepare()
    queue = QueueDesk(config.data / "queue.db", spool)
    removed = spool.sweep(queue.blob_names(), all_ages=True)
    queue.close()
    SqliteAccounts(config.data / "accounts.db").close()
    SqliteTrace(config.data / "trace.db").close()
    SqliteState(config.data / "state.db").close()
    forget(config.data)
    if removed:
        _log.info("spool swept", removed=removed)


def _shared(config: Config, roles: set[str], metrics_folder: Path) -> Shared:
    policy = applied_policy(config)
    for warning in policy.warnings:
        _log.warning("policy", lint=warning)
    sockets: dict[str, list[socket.socket]] = {}
    if "smtp" in roles:
        sockets |= {name: [bind(text) for text in getattr(config.listen, name)] for name in SMTP_LISTENERS}
    if "store" in roles:
        sockets |= {name: [bind(text) for text in getattr(config.listen, name)] for name in STORE_LISTENERS}
    if "admin" in roles and config.listen.metrics:
        sockets["metrics"] = [bind(config.listen.metrics)]
    if "admin" in roles:
        sockets["web"] = [bind(text) for text in config.listen.web]
    needs_tls = any(sockets.get(name) for name in ("submission", "submissions", *STORE_LISTENERS))
    needs_tls |= bool(sockets.get("web")) and config.web.tls
    certificate, key = config.path(config.tls.certificate), config.path(config.tls.key)
    keys = None
    if needs_tls or certificate.exists():
        keys = KeyMaterial(TlsSettings(certificate, key, config.tls.minimum))
    wake_read, wake_write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (wake_read, wake_write):
        end.setblocking(False)
    return Shared(
        config,
        policy,
        shadow_policy(config),
        SharedCounters(),
        keys,
        sockets,
        wake_read,
        wake_write,
        build_routes(config),
        metrics_folder,
        signatures_of(config),
        content.listen(),
    )


def _addresses(shared: Shared) -> dict[str, list[str]]:
    return {
        name: [f"{sock.getsockname()[0]}:{sock.getsockname()[1]}" for sock in found]
        for name, found in shared.sockets.items()
        if found
    }


def _ticker(shared: Shared, reloader: Reloader) -> Callable[[], bool]:
    """Once a second: takes a new certificate; True when the policy is watched and has changed."""

    def tick() -> bool:
        if shared.keys is not None and shared.keys.refresh():
            _log.info("certificate taken", certificate=str(shared.config.tls.certificate))
        return shared.config.policy.watch and reloader.is_due()

    return tick


def _roles(shared: Shared, wanted: set[str]) -> list[Role]:
    workers = shared.config.gateway.workers or min(12, os.cpu_count() or 1)
    found: list[Role] = []
    if "smtp" in wanted:
        found += [_role(shared, f"smtp-{number}", number, run_smtp) for number in range(workers)]
    if wanted & {"smtp", "queue"}:
        found += [_content_role(shared, f"content-{number}") for number in range(min(workers, MAX_CONTENT))]
    if "queue" in wanted:
        found.append(_role(shared, "queue-0", QUEUE_SLOT, run_queue))
    if "store" in wanted and any(shared.sockets.get(name) for name in STORE_LISTENERS):
        found.append(_role(shared, "store-0", STORE_SLOT, run_store))
        if shared.config.checks.spam.learn_from_junk:
            found.append(Role("lessons-0", CONTENT_SLOT, lambda alive: serve_lessons(shared.config, alive)))
    if "admin" in wanted:
        found.append(_role(shared, "admin-0", ADMIN_SLOT, _admin(shared)))
    return found


def _role(shared: Shared, name: str, slot: int, body: Callable[[Process], Awaitable[None]]) -> Role:
    def main(alive: int) -> None:
        give_back_large_blocks()
        shared.counters.attach(slot)

        async def live() -> int:
            process = new_process(shared, name)
            watch(process, alive)
            try:
                await body(process)
            finally:
                await process.recorder.flush()
                process.trace.close()
            return process.exit_code

        code = uvloop.run(live())
        if code:
            sys.exit(code)

    return Role(name, slot, main)


def _admin(shared: Shared) -> Callable[[Process], Awaitable[None]]:
    if not shared.sockets.get("web"):
        return run_admin
    # Before the fork: afterwards the service's user may not be able to read every package.
    from gateway.role_pages import serve_pages

    return lambda process: run_admin(process, serve_pages)


def _content_role(shared: Shared, name: str) -> Role:
    """Without a loop, stores or metrics: it only reads what it is given."""

    def main(alive: int) -> None:
        known = shared.reloads

        def is_outdated() -> bool:
            outcome = read_outcome(shared.config.data)
            return outcome is not None and outcome.ok and outcome.number > known

        spam = SpamFilter(shared.config.data / "spam.model")
        content.serve(shared.content, alive, shared.signatures, spam.judge, is_outdated)

    return Role(name, CONTENT_SLOT, main, is_helper=True)


def build_routes(config: Config) -> Routes:
    relayed = {
        domain: _fixed(config, hop, f"relay_domains.{domain}") if hop.host else None
        for domain, hop in config.relay_domains.items()
    }
    named = {name: _fixed(config, route, f"routes.{name}") for name, route in config.routes.items()}
    store = FixedHost(*parse_next_hop(config.store.host)) if config.store.kind == "lmtp" else None
    return Routes(frozenset(config.domains), relayed, named, store)


def _fixed(config: Config, hop: NextHop, key: str) -> FixedHost:
    scheme, host, port = parse_next_hop(hop.host)
    if not isinstance(hop, Route):
        return FixedHost(scheme, host, port)
    ca_file = str(config.path(hop.ca_file)) if hop.ca_file else None
    if hop.password_file is None:
        return FixedHost(scheme, host, port, ca_file=ca_file)
    path = config.path(hop.password_file)
    try:
        password = path.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}.password_file: {path}: {error}") from error
    return FixedHost(scheme, host, port, hop.username, password, hop.auth, ca_file)
