"""`doctor`: check, and the world outside: DNS, lists that may have this host, the way out, clock and disk."""

import asyncio
import time
from io import BytesIO
from pathlib import Path

import click

from gateway.checks.clamd import ClamdError, connection, parse_clamd, scan
from gateway.checks.dnsbl import ADDRESS_POINTS, reversed_ip
from gateway.checks.zones import Zones
from gateway.cli.check import look_over
from gateway.cli.context import asking_resolver, config_option, guarded, json_option, open_config
from gateway.cli.dns import domain_findings, host_of, load_texts, report
from gateway.config import Config, load_config
from gateway.core.errors import ConfigError
from gateway.policy.context import arguments_of
from gateway.policy_folder import applied_policy
from gateway.published.inspection import ERROR, WARNING, Finding, addresses_of
from gateway.published.outside import clock, disk, way_out
from gateway.telemetry import log

CLAMD_S = 20.0
TRIED = "gmail.com"  # whose mail hosts always answer


@click.command()
@click.option("--try-domain", default=TRIED, show_default=True, help="Whose mail host to try the way out with.")
@config_option
@json_option
def doctor(try_domain: str, config_path: Path, as_json: bool) -> None:
    """All that check looks at, DNS of each domain, DNS lists, the way out, clock and disk. Exit code 1: an error."""

    def body() -> int:
        log.configure(level="critical")  # what is found is told below
        load_texts()
        found = look_over(config_path, load_config(config_path))
        config = open_config(config_path)
        for domain in (*config.domains, *config.relay_domains):
            if not domain.startswith("."):
                found += domain_findings(config, domain)
        found += asyncio.run(_outside(config, try_domain, _zones(config)))
        return report(list(dict.fromkeys(found)), as_json=as_json)

    guarded(body)


def _zones(config: Config) -> list[str]:
    """The lists that the policy asks about clients."""
    try:
        facts = applied_policy(config).facts
    except ConfigError:
        return []  # told as a finding of its own
    return sorted({arguments_of(key)[0] for key in facts if key.startswith("dnsbl(")})


def _clamd(text: str, size: int) -> list[Finding]:
    """Does it answer, and does it take messages as large as ours may be?"""
    address = parse_clamd(text)
    try:
        with connection(address, time.monotonic() + CLAMD_S) as clamd:
            clamd.ping()
        verdict = scan(address, BytesIO(bytes(size)), time.monotonic() + CLAMD_S)
    except (ClamdError, OSError) as error:
        advice = "start it, or take it out of checks.antivirus.clamd: mail is deferred meanwhile"
        return [Finding(ERROR, "antivirus", f"{text} does not answer: {error}", advice)]
    if verdict.is_partial:
        advice = "raise StreamMaxLength in clamd.conf to limits.size: such mail is kept in quarantine meanwhile"
        return [Finding(ERROR, "antivirus", f"{text} does not take messages of {size} octets", advice)]
    return []


async def _outside(config: Config, try_domain: str, zones: list[str]) -> list[Finding]:
    resolver = asking_resolver(config)
    found = clock() + disk(config.data, config.limits.free_space)
    for text in config.checks.antivirus.clamd:
        found += await asyncio.to_thread(_clamd, text, config.limits.size)
    if "default" not in config.routes:
        found += await way_out(try_domain, config.delivery.port, resolver)
    host = host_of(config)
    addresses = dict.fromkeys([*host.addresses, *await addresses_of(host.hostname, resolver)])
    lists = Zones(resolver, ADDRESS_POINTS, lambda zone, is_up: None)
    for zone in zones:
        for address in addresses:
            answers = await lists.ask(reversed_ip(address), zone)
            if answers is None:
                text = f"{zone} could not be asked about {address}; a rule that hangs on it matches nobody either"
                found.append(Finding(WARNING, "lists", text))
            elif answers:
                text = f"{zone} lists {address} ({', '.join(answers)}): others may refuse its mail"
                found.append(Finding(ERROR, "lists", text, "ask the list what it saw, stop that, have it taken off"))
    return found
