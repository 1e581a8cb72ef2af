"""`init` and `run`."""

import secrets
import shutil
from pathlib import Path

import click

from gateway.cli.accounts import check_password, local_address
from gateway.cli.context import USAGE, config_option, fail, guarded, open_config, opened
from gateway.config import Config, load_config
from gateway.core.address import parse_domain
from gateway.defaults import default_policies, write_certificate
from gateway.published.records import Host, wanted_records
from gateway.senderauth.signing import SigningKey

ROLES = ("smtp", "queue", "store", "admin")

_TEMPLATE = """\
# Smarthost's configuration; every key and its default: docs/configuration.md.
[gateway]
hostname = "{hostname}"
data = "data"
policies = "policies"
user = "smarthost"                  # privileges dropped to it after binding, when started as root

[listen]
smtp = ["0.0.0.0:25", "[::]:25"]
submission = ["0.0.0.0:587"]        # STARTTLS, then AUTH
submissions = ["0.0.0.0:465"]       # implicit TLS
pop3s = ["0.0.0.0:995"]
imaps = ["0.0.0.0:993"]
metrics = "127.0.0.1:9125"

[tls]
certificate = "tls/cert.pem"        # self-signed by `smarthost init`: put a real one in its place
key = "tls/key.pem"

[networks]
trusted = ["127.0.0.0/8", "::1/128"]  # may relay without AUTH: MTAs that use us as relayhost

[domains."{domain}"]
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--domain", required=True, help="The first mail domain, such as example.org.")
@click.option("--hostname", default="", help="This host's name in DNS; default: mail.DOMAIN.")
@click.option("--non-interactive", is_flag=True, help="Ask nothing; the first password is made up and printed.")
def init(folder: Path, domain: str, hostname: str, non_interactive: bool) -> None:
    """Write smarthost.toml, policies, keys and the first account."""
    guarded(lambda: _init(folder, domain, hostname, non_interactive))


def _init(folder: Path, domain: str, hostname: str, non_interactive: bool) -> int:
    try:
        domain = parse_domain(domain).ascii
        hostname = parse_domain(hostname or f"mail.{domain}").ascii
    except ValueError as error:
        fail(str(error), USAGE)
    path = folder / "smarthost.toml"
    if path.exists():
        fail(f"{path} exists already; nothing was changed")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "policies").exists():
        shutil.copytree(default_policies(), folder / "policies")
    write_certificate(folder / "tls", hostname)
    path.write_text(_TEMPLATE.format(hostname=hostname, domain=domain), encoding="utf-8")
    config = load_config(path)
    address, password = f"postmaster@{domain}", secrets.token_urlsafe(12)
    if not non_interactive:
        address = click.prompt("First account", default=address)
        password = click.prompt("Its password", default=password, hide_input=True, confirmation_prompt=False)
    address, password = local_address(config, address), check_password(password)
    _first_account(config, address, password)
    click.echo(f"Wrote {path}, {folder / 'policies'}, {folder / 'tls'} and {folder / 'data'}.")
    click.echo(f"First account: {address}" + (f"  password: {password}" if non_interactive else ""))
    click.echo("DNS records to publish (smarthost dns zone prints them again):")
    for record in wanted_records(domain, Host(hostname), [_first_key(config, domain)]):
        click.echo(f"  {record.zone_line.removeprefix('; ')}")
    click.echo("Next: smarthost check, then smarthost run; once the records are in DNS,")
    click.echo(f"  smarthost dkim rotate {domain}   has outgoing mail signed")
    click.echo(f"  smarthost dns check {domain}     says what is wrong with them")
    return 0


def _first_account(config: Config, address: str, password: str) -> None:
    from gateway.accounts.credentials import hash_password
    from gateway.storage.sqlite_accounts import SqliteAccounts

    with opened(config, SqliteAccounts) as accounts:
        accounts.add(address, hash_password(password))


def _first_key(config: Config, domain: str) -> SigningKey:
    from gateway.cli.dkim import make_key
    from gateway.storage.sqlite_dkim import SqliteDkimKeys

    with opened(config, SqliteDkimKeys) as keys:
        return make_key(keys, domain)


@click.command()
@config_option
@click.option("--role", "roles", default=",".join(ROLES), show_default=True, help="Roles to run, separated by commas.")
def run(config_path: Path, roles: str) -> None:
    """Run the gateway in the foreground, until SIGTERM or Ctrl-C."""
    wanted = [role for role in roles.split(",") if role]
    unknown = sorted(set(wanted) - set(ROLES))
    if unknown or not wanted:
        fail(f"unknown role {', '.join(unknown) or '(none)'}; there are {', '.join(ROLES)}", USAGE)

    def start() -> int:
        from gateway.app import run_gateway

        return run_gateway(open_config(config_path, as_service=False), wanted)

    guarded(start)
