"""The pages for users, within the role admin. Apart from it, since nobody else needs the packages that they do."""

from gateway.accounts.choices import Choices
from gateway.admin.app import make_app
from gateway.process import Process, SystemClock, directory_of, links_of
from gateway.quarantine.links import LinkDesk
from gateway.servers.web import WebListener
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_quarantine import SqliteQuarantine


def serve_pages(process: Process, accounts: SqliteAccounts, quarantine: SqliteQuarantine) -> WebListener:
    shared, config = process.shared, process.shared.config
    choices = Choices(directory_of(config, accounts), accounts)
    desk = LinkDesk(links_of(accounts), quarantine, choices, SystemClock())
    return WebListener(make_app(desk), shared.contexts() if config.web.tls else None, shared.sockets["web"])
