"""The role that lets users have their mail: what it is made of and how it drains."""

from concurrent.futures import ThreadPoolExecutor

from gateway.process import Process, directory_of, drain, login_of, quotas_of
from gateway.servers.imap import serve_imap
from gateway.servers.junk import JunkLessons
from gateway.servers.lmtp import LmtpService
from gateway.servers.pop3 import Pop3Service
from gateway.servers.store_listener import Serve, StoreListener, StoreServer, StoreSettings
from gateway.servers.summarised import open_store
from gateway.spam.lesson_spool import LessonSpool
from gateway.storage.sqlite_accounts import SqliteAccounts

STORE_LISTENERS = ("pop3", "pop3s", "imap", "imaps", "lmtp")


async def run_store(process: Process) -> None:
    shared, config = process.shared, process.shared.config
    accounts = SqliteAccounts(config.data / "accounts.db")
    folder = config.data / "mail"
    process.metrics.reset_gauges(STORE_LISTENERS)
    lmtp = LmtpService(config.networks.trusted, directory_of(config, accounts))
    serve: dict[str, Serve] = {"pop3": Pop3Service(), "imap": serve_imap, "lmtp": lmtp}
    limits = config.limits
    store = open_store(folder, quotas_of(config, accounts))
    spool = LessonSpool(config.data / "lessons") if config.checks.spam.learn_from_junk else None
    server = StoreServer(
        StoreSettings(config.gateway.hostname, limits.connections, limits.connections_by_address, limits.size, folder),
        store,
        login_of(shared, accounts),
        shared.counters,
        process.metrics,
        shared.contexts(),
        ThreadPoolExecutor(4, thread_name_prefix="store"),
        JunkLessons(store, shared.counters, spool),
    )
    listeners = [
        StoreListener(name, server, serve[name.removesuffix("s")], shared.sockets[name])
        for name in STORE_LISTENERS
        if shared.sockets.get(name)
    ]
    await process.stopping.wait()
    await drain(process, *(listener.drain() for listener in listeners))
