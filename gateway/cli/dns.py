"""`dns`: the records that a domain should publish, and what is wrong with those that it does."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path

import click

from gateway.cli.context import (
    NO,
    asking_resolver,
    config_option,
    fail,
    guarded,
    json_option,
    open_config,
    opened,
    show,
)
from gateway.config import Config, parse_next_hop
from gateway.core.address import covering, parse_domain
from gateway.net.listener import parse_address
from gateway.published.inspection import ERROR, Finding, inspect
from gateway.published.records import Host, Record, wanted_records
from gateway.senderauth.signing import nearest_keys
from gateway.storage.sqlite_dkim import KeyState, SqliteDkimKeys


@click.group()
def dns() -> None:
    """What a domain publishes: records, zone, check."""


@dns.command("records")
@click.argument("domain")
@config_option
@json_option
def records(domain: str, config_path: Path, as_json: bool) -> None:
    """The records that the domain should have, and why."""

    def body() -> None:
        rows = [asdict(each) for each in _wanted(open_config(config_path), domain)]
        show(rows, ("name", "rdtype", "value", "why"), as_json=as_json)

    guarded(body)


@dns.command("zone")
@click.argument("domain")
@config_option
def zone(domain: str, config_path: Path) -> None:
    """The same as lines of a BIND zone; what only you can know stands in comments."""

    def body() -> None:
        for record in _wanted(open_config(config_path), domain):
            click.echo(f"; {record.why}\n{record.zone_line}")

    guarded(body)


@dns.command("check")
@click.argument("domain")
@config_option
@json_option
def check(domain: str, config_path: Path, as_json: bool) -> None:
    """Ask DNS, and say what is wrong and how to mend it. Exit code 1: something is."""

    def body() -> int:
        load_texts()
        config = open_config(config_path)
        found = domain_findings(config, _own(config, domain))
        return report(found, f"{domain}: ", as_json=as_json)

    guarded(body)


def report(findings: Sequence[Finding], of: str = "", *, as_json: bool) -> int:
    """Show them, and their number after `of`; returns the exit code."""
    errors = sum(each.level == ERROR for each in findings)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in findings], indent=2))
        return NO if errors else 0
    for each in findings:
        click.echo(f"{each.level}: {each.about}: {each.text}")
        if each.mend:
            click.echo(f"    mend: {each.mend}")
    click.echo(f"{of}{errors} errors, {len(findings) - errors} warnings")
    return NO if errors else 0


def load_texts() -> None:
    """Before the change of users, who may not read where it is."""
    import_module("gateway.published.texts")


def domain_findings(config: Config, domain: str) -> list[Finding]:
    from gateway.published.texts import inspect_texts

    with opened(config, SqliteDkimKeys) as store:
        keys = nearest_keys(domain, store)
    found = asyncio.run(inspect(domain, host_of(config), keys, asking_resolver(config)))
    return sorted([*found, *inspect_texts(domain, config.dns.servers)], key=lambda each: (each.about, each.level))


def host_of(config: Config) -> Host:
    """Its addresses: those that it sends from or listens on by name, if they are public."""
    listening = [parse_address(address)[0] for address in config.listen.smtp]
    addresses = [each for each in (*config.delivery.source, *listening) if ip_address(each).is_global]
    default = config.routes.get("default")
    route = parse_next_hop(default.host)[1] if default is not None else ""
    return Host(config.gateway.hostname, tuple(dict.fromkeys(addresses)), route)


def _wanted(config: Config, domain: str) -> list[Record]:
    name = _own(config, domain)
    with opened(config, SqliteDkimKeys) as store:
        own = tuple(each.key for each in store.keys(name) if each.state is not KeyState.RETIRED)
        return wanted_records(name, host_of(config), own or nearest_keys(name, store))


def _own(config: Config, text: str) -> str:
    try:
        domain = parse_domain(text).ascii
    except ValueError as error:
        fail(f"{text}: {error}")
    if domain not in config.domains and not any(entry in config.relay_domains for entry in covering(domain)):
        fail(f"{domain} is neither in [domains] nor in [relay_domains]")
    return domain
