"""`check`: what this host alone can tell of its configuration, policies, keys and permissions."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import click

from gateway.cli.context import NO, config_option, guarded
from gateway.config import Config, load_config
from gateway.content.archives import has_library
from gateway.core.errors import ConfigError
from gateway.net.tls import TlsSettings, check_pair
from gateway.policy_folder import applied_policy, engines_of, shadow_policy, signatures_of
from gateway.published.inspection import ERROR, WARNING, Finding

EXPIRY_WARNING_DAYS = 21


@click.command()
@config_option
def check(config_path: Path) -> None:
    """Look over configuration, policies, keys and permissions."""
    guarded(lambda: _check(config_path))


def _check(path: Path) -> int:
    found = look_over(path, load_config(path))
    for level in (WARNING, ERROR):
        for each in found:
            if each.level == level:
                click.echo(f"{level}: {each.about}: {each.text}", err=True)
    errors = sum(each.level == ERROR for each in found)
    click.echo(f"{path}: {errors} errors, {len(found) - errors} warnings")
    return NO if errors else 0


def look_over(path: Path, config: Config) -> list[Finding]:
    found: list[Finding] = []
    try:
        found += [_warning("policy", text) for text in applied_policy(config).warnings]
        shadow = shadow_policy(config)
        if engines_of(config, signatures_of(config)) == ["none"]:
            found.append(_warning("antivirus", "no engine runs: neither rules for yara nor a clamd are set up"))
        found += [] if shadow is None else [_warning("policy", text) for text in shadow.warnings]
    except ConfigError as error:
        found.append(Finding(ERROR, "policy", str(error)))
    if not has_library():
        text = "libarchive (Debian's libarchive13) is not installed: 7z, rar, iso and cab cannot be looked into"
        found.append(_warning("content", text))
    found += _tls(config) + _pages(config)
    for route in config.routes.values():
        if route.password_file is not None:
            found += _secret(config.path(route.password_file))
    if not config.domains and not config.relay_domains:
        text = f"none in {path}; only trusted networks will have anything from this gateway"
        found.append(_warning("domains", text))
    if "." not in config.gateway.hostname:
        text = f"gateway.hostname: {config.gateway.hostname} has no dot; other hosts will refuse it"
        found.append(_warning("host", text))
    return found


def _pages(config: Config) -> list[Finding]:
    url, listens = config.web.url, bool(config.listen.web)
    if listens != bool(url):
        missing = "web.url" if listens else "listen.web"
        return [_warning("web", f"{missing} is not set: digests have no links that work")]
    host = urlsplit(url).hostname or ""
    if url.startswith("http://") and host not in ("localhost", "::1") and not host.startswith("127."):
        return [_warning("web", f"web.url: {url} is in clear: who listens in can use the links of digests")]
    return []


def _tls(config: Config) -> list[Finding]:
    from cryptography import x509

    certificate, key = config.path(config.tls.certificate), config.path(config.tls.key)
    listen = config.listen
    needing = (*listen.submission, *listen.submissions, *listen.pop3, *listen.pop3s, *listen.imap, *listen.imaps)
    if not (needing or (listen.web and config.web.tls) or certificate.exists()):
        return []
    try:
        check_pair(TlsSettings(certificate, key, config.tls.minimum))
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (ConfigError, ValueError, OSError) as error:
        return [Finding(ERROR, "tls", str(error))]
    found = _secret(key)
    left = read.not_valid_after_utc - datetime.now(UTC)
    if left < timedelta(0):
        found.append(Finding(ERROR, "tls", f"{certificate} expired {-left.days} days ago"))
    elif left < timedelta(days=EXPIRY_WARNING_DAYS):
        found.append(_warning("tls", f"{certificate} expires in {left.days} days"))
    if read.issuer == read.subject:
        found.append(_warning("tls", f"{certificate} is self-signed: mail programs will object"))
    return found


def _secret(path: Path) -> list[Finding]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return [Finding(ERROR, "permissions", f"{path}: {error.strerror}")]
    if mode & 0o077:
        return [Finding(ERROR, "permissions", f"{path}: mode {mode:04o}, wanted is 0600: it holds a secret")]
    return []


def _warning(about: str, text: str) -> Finding:
    return Finding(WARNING, about, text)
