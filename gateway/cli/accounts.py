"""`user` and `alias`."""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path

import click

from gateway.cli.context import NO, USAGE, config_option, fail, iso, json_option, show, with_store
from gateway.config import Config, parse_size
from gateway.core.address import Mailbox, parse_mailbox
from gateway.servers.quotas import size_text
from gateway.storage.sqlite_accounts import SqliteAccounts

MIN_PASSWORD = 8


@click.group()
def user() -> None:
    """Accounts: add, list, senders, quota, passwd, disable, enable, delete."""


@click.group()
def alias() -> None:
    """Aliases: add, list, delete."""


def _with_accounts(path: Path, body: Callable[[Config, SqliteAccounts], int | None]) -> None:
    with_store(path, SqliteAccounts, body)


def local_address(config: Config, text: str) -> str:
    """A plain address of a local domain, lower case, fit to name a folder; else a usage error."""
    try:
        mailbox: Mailbox = parse_mailbox(text)
    except ValueError as error:
        fail(f"{text}: {error}", USAGE)
    local = mailbox.local_part.lower()
    if mailbox.domain.ascii not in config.domains:
        fail(f"{text}: {mailbox.domain} is none of [domains]: {', '.join(config.domains) or 'there are none'}", USAGE)
    if not local.isprintable() or set(local) & set('/\\"%!@+ ') or local.startswith("."):
        fail(f"{text}: an account's name has none of / \\ \" % ! @ + or blanks", USAGE)
    return f"{local}@{mailbox.domain}"


def _new_password(*, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        fail("no terminal to ask for a password: use --password-stdin", USAGE)
    return check_password(str(password))


def check_password(password: str) -> str:
    if len(password) < MIN_PASSWORD:
        fail(f"a password has at least {MIN_PASSWORD} characters", USAGE)
    return password


stdin_option = click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")


@user.command("add")
@click.argument("address")
@config_option
@stdin_option
def user_add(address: str, config_path: Path, password_stdin: bool) -> None:
    """Add an account."""
    from gateway.accounts.credentials import hash_password

    def body(config: Config, accounts: SqliteAccounts) -> int:
        name = local_address(config, address)
        if accounts.account(name) is not None:
            fail(f"{name} exists already")
        accounts.add(name, hash_password(_new_password(from_stdin=password_stdin)))
        click.echo(f"added {name}")
        return 0

    _with_accounts(config_path, body)


@user.command("list")
@config_option
@json_option
def user_list(config_path: Path, as_json: bool) -> None:
    """List accounts."""

    def body(config: Config, accounts: SqliteAccounts) -> int:
        rows = [
            {
                "address": account.address,
                "state": "disabled" if account.is_disabled else "enabled",
                "created": iso(account.created),
            }
            for account in accounts.accounts()
        ]
        show(rows, ("address", "state", "created"), as_json=as_json)
        return 0

    _with_accounts(config_path, body)


@user.command("senders")
@click.argument("address")
@click.option("--allow", "allowed", multiple=True, metavar="SENDER", help="Welcome: an address, or @domain.")
@click.option("--block", "blocked", multiple=True, metavar="SENDER", help="Refuse mail from it.")
@click.option("--forget", "forgotten", multiple=True, metavar="SENDER", help="Neither of both any more.")
@config_option
@json_option
def user_senders(
    address: str,
    allowed: tuple[str, ...],
    blocked: tuple[str, ...],
    forgotten: tuple[str, ...],
    config_path: Path,
    as_json: bool,
) -> None:
    """Which senders a recipient here has allowed and blocked; links in digests block too."""
    from gateway.accounts.choices import Choices
    from gateway.process import directory_of

    def body(config: Config, accounts: SqliteAccounts) -> int:
        choices = Choices(directory_of(config, accounts), accounts)
        try:
            recipient = parse_mailbox(address)
            for sender in allowed:
                choices.welcome(recipient, sender)
            for sender in blocked:
                choices.block(recipient, sender)
            missing = [sender for sender in forgotten if not choices.forget(recipient, sender)]
        except ValueError as error:
            fail(str(error), USAGE)
        rows = [
            {"sender": sender, "choice": "allowed" if is_welcome else "blocked"}
            for sender, is_welcome in sorted(choices.of(recipient).items())
        ]
        show(rows, ("sender", "choice"), as_json=as_json)
        for sender in missing:
            click.echo(f"smarthost: nothing was said of {sender}", err=True)
        return NO if missing else 0

    _with_accounts(config_path, body)


@user.command("quota")
@click.argument("address", required=False)
@click.argument("size", required=False)
@config_option
@json_option
def user_quota(address: str | None, size: str | None, config_path: Path, as_json: bool) -> None:
    """How much mail accounts have and may have; with SIZE, set one's.

    SIZE is a number of octets, "500MB" or "5GB"; "none" is any amount, "default" what [store] quota says.
    """
    from gateway.mailbox.quota import used
    from gateway.process import quotas_of

    def body(config: Config, accounts: SqliteAccounts) -> int:
        name = None if address is None else address.lower()
        if name is not None and accounts.account(name) is None:
            fail(f"no account {name}")
        if name is not None and size is not None:
            accounts.set_quota(name, _quota(size))
        quotas, rows = quotas_of(config, accounts), []
        for account in accounts.accounts():
            if name in (None, account.address):
                octets, limit = used(config.data / "mail", account.address), quotas.limit(account.address)
                row: dict[str, object] = {"address": account.address, "used": octets, "limit": limit or None}
                if not as_json:
                    row |= {"used": size_text(octets), "limit": size_text(limit) if limit else "none"}
                rows.append(row | {"percent": octets * 100 // limit if limit else None})
        show(rows, ("address", "used", "limit", "percent"), as_json=as_json)
        return 0

    _with_accounts(config_path, body)


def _quota(size: str) -> int | None:
    if size == "default":
        return None
    if size == "none":
        return 0
    try:
        octets = parse_size(size)
    except ValueError as error:
        fail(str(error), USAGE)
    if not octets:
        fail("no mail at all fits in 0: say none for any amount, or disable the account", USAGE)
    return octets


@user.command("passwd")
@click.argument("address")
@config_option
@stdin_option
def user_passwd(address: str, config_path: Path, password_stdin: bool) -> None:
    """Set an account's password."""
    from gateway.accounts.credentials import hash_password

    def body(config: Config, accounts: SqliteAccounts) -> int:
        name = address.lower()
        if accounts.account(name) is None:
            fail(f"no account {name}")
        accounts.set_password(name, hash_password(_new_password(from_stdin=password_stdin)))
        click.echo(f"password of {name} set")
        return 0

    _with_accounts(config_path, body)


def _switch(address: str, config_path: Path, *, disabled: bool) -> None:
    def body(config: Config, accounts: SqliteAccounts) -> int:
        if not accounts.set_disabled(address.lower(), disabled=disabled):
            fail(f"no account {address.lower()}")
        click.echo(f"{'disabled' if disabled else 'enabled'} {address.lower()}")
        return 0

    _with_accounts(config_path, body)


@user.command("disable")
@click.argument("address")
@config_option
def user_disable(address: str, config_path: Path) -> None:
    """Refuse an account's sign-ins; its mail is still taken and kept."""
    _switch(address, config_path, disabled=True)


@user.command("enable")
@click.argument("address")
@config_option
def user_enable(address: str, config_path: Path) -> None:
    """Let a disabled account sign in again."""
    _switch(address, config_path, disabled=False)


@user.command("delete")
@click.argument("address")
@config_option
def user_delete(address: str, config_path: Path) -> None:
    """Delete an account; its mail stays on disk, out of reach, until removed by hand."""

    def body(config: Config, accounts: SqliteAccounts) -> int:
        name = address.lower()
        if not accounts.delete(name):
            fail(f"no account {name}")
        local, _, domain = name.rpartition("@")
        folder = config.data / "mail" / domain / local
        if folder.is_dir():
            # A new account of the same name must not find the old one's mail.
            kept = folder.with_name(f".deleted-{local}-{secrets.token_hex(4)}")
            folder.rename(kept)
            click.echo(f"mail kept in {kept}")
        click.echo(f"deleted {name}")
        return 0

    _with_accounts(config_path, body)


@alias.command("add")
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@config_option
def alias_add(address: str, targets: tuple[str, ...], config_path: Path) -> None:
    """Let mail for ADDRESS go to TARGETS, instead of what it went to before."""
    from gateway.accounts.directory import MAX_EXPANSION, AliasLoop, find_loop

    def body(config: Config, accounts: SqliteAccounts) -> int:
        name = local_address(config, address)
        found = []
        for target in targets:
            try:
                found.append(str(parse_mailbox(target)).lower())
            except ValueError as error:
                fail(f"{target}: {error}", USAGE)
        if len(found) > MAX_EXPANSION:
            fail(f"an alias has at most {MAX_EXPANSION} targets", USAGE)
        try:
            find_loop(accounts, name, found, config.gateway.recipient_delimiter)
        except AliasLoop as loop:
            fail(f"this alias would loop: {loop}")
        for target in found:
            _warn_about(config, accounts, target)
        accounts.set_alias(name, tuple(dict.fromkeys(found)))
        click.echo(f"{name} → {', '.join(found)}")
        return 0

    _with_accounts(config_path, body)


def _warn_about(config: Config, accounts: SqliteAccounts, target: str) -> None:
    domain = target.rpartition("@")[2]
    if domain not in config.domains:
        if not config.forwarding.srs:
            text = "forwarded mail keeps its sender (forwarding.srs), so it may fail SPF there and be refused"
            click.echo(f"warning: {target} is elsewhere: {text}", err=True)
    elif accounts.account(target) is None and not accounts.alias(target):
        click.echo(f"warning: {target} does not exist yet", err=True)


@alias.command("list")
@config_option
@json_option
def alias_list(config_path: Path, as_json: bool) -> None:
    """List aliases."""

    def body(config: Config, accounts: SqliteAccounts) -> int:
        rows = [{"alias": name, "targets": list(targets)} for name, targets in accounts.aliases()]
        show(rows, ("alias", "targets"), as_json=as_json)
        return 0

    _with_accounts(config_path, body)


@alias.command("delete")
@click.argument("address")
@config_option
def alias_delete(address: str, config_path: Path) -> None:
    """Delete an alias."""

    def body(config: Config, accounts: SqliteAccounts) -> int:
        if not accounts.delete_alias(address.lower()):
            click.echo(f"smarthost: no alias {address.lower()}", err=True)
            return NO
        click.echo(f"deleted {address.lower()}")
        return 0

    _with_accounts(config_path, body)
