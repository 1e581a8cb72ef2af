"""The role that lets users have their mail: what it is made of and how it drains."""

from gateway.mailbox.store import MessageStore
from gateway.process import Process, drain, login_of
from gateway.servers.pop3 import Pop3Listener, Pop3Settings
from gateway.storage.sqlite_accounts import SqliteAccounts

POP3_LISTENERS = ("pop3", "pop3s")


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
