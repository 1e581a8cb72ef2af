"""`dkim`: keys that sign, and their change by hand and without an interface to anybody's DNS.

A new key waits until its record is seen in DNS; then it takes the place of the one before, whose record stays there
until what it signed has arrived everywhere.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import click

from gateway.cli.context import USAGE, asking_resolver, config_option, fail, iso, json_option, show, with_store
from gateway.config import Config
from gateway.core.address import parse_domain
from gateway.published.inspection import key_trouble
from gateway.published.records import key_record
from gateway.senderauth.signing import ALGORITHMS, SigningKey, new_private_key
from gateway.storage.sqlite_dkim import KeptKey, KeyState, SqliteDkimKeys

KEEP_RECORD_S = 7 * 86400.0  # a message may be as long on its way, and be looked at again later
_SELECTOR_LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-")


@click.group()
def dkim() -> None:
    """Keys of DKIM signatures: new, list, rotate, retire."""


def _with_keys(path: Path, body: Callable[[Config, SqliteDkimKeys], int | None]) -> None:
    with_store(path, SqliteDkimKeys, body)


def _domain(text: str) -> str:
    try:
        domain = parse_domain(text)
    except ValueError as error:
        fail(f"{text}: {error}", USAGE)
    if domain.is_literal:
        fail(f"{text}: a domain is wanted, not an address", USAGE)
    return domain.ascii


@dkim.command("new")
@click.argument("domain")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="rsa", show_default=True)
@click.option("--selector", default="", help="Its name in DNS; default: the month, and a letter.")
@config_option
def new(domain: str, algorithm: str, selector: str, config_path: Path) -> None:
    """Make a key that waits for its record, and print that."""
    name = _domain(domain)
    if selector and (not set(selector) <= _SELECTOR_LETTERS or len(selector) > 63 or selector.strip("-") != selector):
        fail(f"{selector}: a selector has letters a to z, digits and dashes, 63 at most", USAGE)
    _with_keys(config_path, lambda config, keys: _new(keys, name, algorithm, selector))


def _new(keys: SqliteDkimKeys, domain: str, algorithm: str, selector: str) -> int:
    _publish(make_key(keys, domain, algorithm, selector))
    return 0


def make_key(keys: SqliteDkimKeys, domain: str, algorithm: str = "rsa", selector: str = "") -> SigningKey:
    """A key that waits. Without a selector it gets the first free one of this month."""
    taken = {each.key.selector for each in keys.keys(domain)}
    month = time.strftime("%Y%m")
    names = [selector] if selector else [f"{month}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    free = next((name for name in names if name not in taken), "")
    if not free:
        fail(f"{domain}: there is a key with the selector {names[-1]} already")
    key = SigningKey(domain, free, new_private_key(algorithm))
    if not keys.add(key):
        fail(f"{domain}: there is a key with the selector {free} already")
    return key


def _publish(key: SigningKey) -> None:
    click.echo(f"Publish:\n\n  {key_record(key).zone_line}\n\nThen: smarthost dkim rotate {key.domain}")


@dkim.command("list")
@click.argument("domain", default="")
@config_option
@json_option
def list_keys(domain: str, config_path: Path, as_json: bool) -> None:
    """List the keys of a domain, or of all."""

    def body(config: Config, keys: SqliteDkimKeys) -> None:
        rows = [
            {
                "domain": each.key.domain, "selector": each.key.selector, "algorithm": each.key.algorithm,
                "state": each.state.value, "since": iso(each.changed), "record": each.key.record,
            }
            for each in keys.keys(_domain(domain) if domain else "")
        ]  # fmt: skip
        show(rows, ("domain", "selector", "algorithm", "state", "since"), as_json=as_json)

    _with_keys(config_path, body)


@dkim.command("rotate")
@click.argument("domain")
@config_option
def rotate(domain: str, config_path: Path) -> None:
    """Take the next step: make a new key, or let the one that waits sign once its record is seen in DNS."""
    name = _domain(domain)
    _with_keys(config_path, lambda config, keys: _rotate(config, keys, name))


def _rotate(config: Config, keys: SqliteDkimKeys, domain: str) -> int:
    known = keys.keys(domain)
    waiting = [each.key for each in known if each.state is KeyState.WAITING]
    active = [each.key for each in known if each.state is KeyState.ACTIVE]
    if not waiting:
        for algorithm in dict.fromkeys(key.algorithm for key in active) or ("rsa",):
            _publish(make_key(keys, domain, algorithm))
        return 0
    unseen = [(key, what) for key in waiting if (what := asyncio.run(_trouble(config, key)))]
    for key, what in unseen:
        click.echo(f"{key.name}: {what}")
        _publish(key)
    seen = [key for key in waiting if key not in [each for each, _ in unseen]]
    replaced = [key for key in active if key.algorithm in {each.algorithm for each in seen}]
    keys.set_states([(key, KeyState.ACTIVE) for key in seen] + [(key, KeyState.RETIRED) for key in replaced])
    for key in seen:
        click.echo(f"{key.selector} signs for {domain} from now on.")
    for key in replaced:
        click.echo(f"{key.selector} signs no more. Leave its record for a week, then:")
        click.echo(f"  smarthost dkim retire {domain} {key.selector}")
    return 1 if unseen else 0


async def _trouble(config: Config, key: SigningKey) -> str:
    return await key_trouble(key, asking_resolver(config))


@dkim.command("retire")
@click.argument("domain")
@click.argument("selector")
@click.option("--now", "at_once", is_flag=True, help="Forget a key although its signatures may still be on their way.")
@config_option
def retire(domain: str, selector: str, at_once: bool, config_path: Path) -> None:
    """Let a key sign no more; or forget one that does not sign."""
    name = _domain(domain)
    _with_keys(config_path, lambda config, keys: _retire(keys, name, selector, at_once=at_once))


def _retire(keys: SqliteDkimKeys, domain: str, selector: str, *, at_once: bool) -> int:
    found = next((each for each in keys.keys(domain) if each.key.selector == selector), None)
    if found is None:
        fail(f"{domain}: no key with the selector {selector}")
    if found.state is KeyState.ACTIVE:
        keys.set_states([(found.key, KeyState.RETIRED)])
        click.echo(f"{selector} signs no more. Leave its record for a week.")
        if not keys.active(domain):
            click.echo(f"Nothing signs for {domain} now.")
        return 0
    if found.state is KeyState.RETIRED and not at_once and _is_recent(found):
        fail(f"{selector} signed until {iso(found.changed)}; leave its record for a week, or retire it with --now")
    keys.delete(found.key)
    click.echo(f"{selector} is forgotten. Take {selector}._domainkey.{domain} out of DNS.")
    return 0


def _is_recent(kept: KeptKey) -> bool:
    return time.time() - kept.changed < KEEP_RECORD_S
