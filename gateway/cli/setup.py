"""`init`, `check` and `run`."""

import secrets
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway.cli.accounts import check_password, local_address
from gateway.cli.context import NO, USAGE, config_option, fail, guarded, open_config
from gateway.config import Config, load_config
from gateway.core.address import parse_domain
from gateway.core.errors import ConfigError
from gateway.defaults import default_policies, write_certificate
from gateway.net.tls import TlsSettings, check_pair
from gateway.policy_folder import applied_policy, shadow_policy

EXPIRY_WARNING_DAYS = 21
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
    click.echo(_dns_records(domain, hostname))
    click.echo(f"  {_first_key(config, domain)}")
    click.echo("Next: smarthost check, then smarthost run; once the last record is in DNS,")
    click.echo(f"  smarthost dkim rotate {domain}   has outgoing mail signed")
    return 0


def _first_account(config: Config, address: str, password: str) -> None:
    from gateway.accounts.credentials import hash_password
    from gateway.storage.sqlite_accounts import SqliteAccounts

    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    accounts = SqliteAccounts(config.data / "accounts.db")
    accounts.add(address, hash_password(password))
    accounts.close()


def _first_key(config: Config, domain: str) -> str:
    from gateway.cli.dkim import make_key, zone_lines
    from gateway.storage.sqlite_dkim import SqliteDkimKeys

    keys = SqliteDkimKeys(config.data / "accounts.db")
    key = make_key(keys, domain)
    keys.close()
    return zone_lines(key)


def _dns_records(domain: str, hostname: str) -> str:
    return (
        "DNS records to publish (put this host's address in):\n"
        f"  {hostname}.  A     <this host's IPv4 address>, with a reverse record that names {hostname}\n"
        f"  {domain}.  MX    10 {hostname}.\n"
        f'  {domain}.  TXT   "v=spf1 mx -all"\n'
        f'  _dmarc.{domain}.  TXT   "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"'
    )


@click.command()
@config_option
def check(config_path: Path) -> None:
    """Look over configuration, policies, keys and permissions."""
    guarded(lambda: _check(config_path))


def _check(path: Path) -> int:
    errors: list[str] = []
    warnings: list[str] = []
    config = load_config(path)
    try:
        warnings += applied_policy(config).warnings
        shadow = shadow_policy(config)
        warnings += () if shadow is None else shadow.warnings
    except ConfigError as error:
        errors.append(str(error))
    _check_tls(config, errors, warnings)
    for route in config.routes.values():
        if route.password_file is not None:
            _check_secret(config.path(route.password_file), errors)
    if not config.domains and not config.relay_domains:
        warnings.append(f"{path}: domains: none; only trusted networks will have anything from this gateway")
    _check_hostname(config, warnings)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    for message in errors:
        click.echo(f"error: {message}", err=True)
    click.echo(f"{path}: {len(errors)} errors, {len(warnings)} warnings")
    return NO if errors else 0


def _check_tls(config: Config, errors: list[str], warnings: list[str]) -> None:
    from cryptography import x509

    certificate, key = config.path(config.tls.certificate), config.path(config.tls.key)
    listen = config.listen
    if not (listen.submission or listen.submissions or listen.pop3 or listen.pop3s or certificate.exists()):
        return
    try:
        check_pair(TlsSettings(certificate, key, config.tls.minimum))
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (ConfigError, ValueError, OSError) as error:
        errors.append(str(error))
        return
    _check_secret(key, errors)
    left = found.not_valid_after_utc - datetime.now(UTC)
    if left < timedelta(0):
        errors.append(f"tls: {certificate} expired {-left.days} days ago")
    elif left < timedelta(days=EXPIRY_WARNING_DAYS):
        warnings.append(f"tls: {certificate} expires in {left.days} days")
    if found.issuer == found.subject:
        warnings.append(f"tls: {certificate} is self-signed: mail programs will object")


def _check_secret(path: Path, errors: list[str]) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        errors.append(f"{path}: {error.strerror}")
        return
    if stat.S_IMODE(mode) & 0o077:
        errors.append(f"{path}: mode {stat.S_IMODE(mode):04o}, wanted is 0600: it holds a secret")


def _check_hostname(config: Config, warnings: list[str]) -> None:
    if "." not in config.gateway.hostname:
        warnings.append(f"gateway.hostname: {config.gateway.hostname} has no dot; other hosts will refuse it")


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
