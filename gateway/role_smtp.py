"""The role that takes mail in: its listeners, the checks behind its policy, the door to the queue."""

import asyncio
from collections.abc import Callable

from gateway.policy.lists import network_set
from gateway.process import Process, directory_of, drain, intake_of, login_of
from gateway.reload import copied_policy, read_outcome
from gateway.role_checks import make_checks
from gateway.servers.smtp_listener import ListenerSettings, SmtpListener
from gateway.servers.smtp_service import SmtpService, SmtpSettings
from gateway.smtp.handler import ServerSettings
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.telemetry import log

_log = log.get("roles")
SMTP_LISTENERS = ("smtp", "submission", "submissions")


async def run_smtp(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    limits = config.limits
    accounts = SqliteAccounts(config.data / "accounts.db")
    directory = directory_of(config, accounts)
    spool = Spool(config.data / "spool", reserve=limits.free_space)
    slot = shared.counters.slot
    queue = SqliteQueue(config.data / "queue.db", spool, owner=f"smtp-{slot}", on_broken=process.fail_from_thread)
    intake = intake_of(config, queue, directory)
    trusted = network_set(config.networks.trusted)
    checks = make_checks(process)
    service = SmtpService(
        settings=SmtpSettings(
            config.gateway.hostname,
            config.policy.answer == "early",
            limits.hops,
            limits.message_stage,
            config.policy.shadow_lookups,
        ),
        policy=shared.policy,
        shadow=shared.shadow,
        source=checks.source,
        memory=checks.memory,
        authentication=checks.authentication,
        directory=directory,
        intake=intake,
        login=login_of(shared, accounts),
        trusted=trusted,
        upstream=network_set(config.networks.upstream),
        counters=shared.counters,
        metrics=process.metrics,
        recorder=process.recorder,
        new_content=spool.new,
        has_room=spool.has_room,
        wake_runner=shared.wake_runner,
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
                name, limits.connections, limits.connections_by_address, network_set(config.listen.proxy_from),
                network_set(config.listen.xclient_from), trusted, network_set(limits.repair_bare_lf_from),
            ),
            protocol, service, shared.contexts() if shared.keys is not None else None, shared.sockets[name],
        )
        for name in SMTP_LISTENERS
        if shared.sockets.get(name)
    ]  # fmt: skip
    process.on_reload = _reloading(process, service)
    process.on_reload()  # one may have come since this process was forked
    await process.stopping.wait()
    await drain(process, *(listener.drain() for listener in listeners))
    if not process.exit_code:
        await asyncio.to_thread(queue.close)
        await checks.close()


def _reloading(process: Process, service: SmtpService) -> Callable[[], None]:
    """At SIGHUP: new sessions get the policy that the supervisor has tested."""
    tasks: set[asyncio.Task[None]] = set()

    async def apply() -> None:
        outcome = await asyncio.to_thread(read_outcome, process.shared.config.data)
        config = process.shared.config
        if outcome is None or not outcome.ok:
            return
        try:
            if outcome.version != service.policy.version:
                service.policy = await asyncio.to_thread(copied_policy, config, outcome.version)
            if outcome.shadow != (service.shadow.version if service.shadow is not None else ""):
                service.shadow = await asyncio.to_thread(copied_policy, config, outcome.shadow)
        except Exception as error:
            _log.error("policy could not be taken", version=outcome.version, exc_info=error)

    def start() -> None:
        task = asyncio.get_running_loop().create_task(apply())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return start
