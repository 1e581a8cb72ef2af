"""The checks behind an SMTP process's policy, and what they remember: made of the configuration, met here."""

import asyncio
from dataclasses import dataclass
from functools import partial

from gateway.checks.antivirus import Antivirus, Clamds
from gateway.checks.clamd import parse_clamd
from gateway.checks.content import Content, ContentClient
from gateway.checks.dnsbl import DnsLists, DomainLists, UriLists
from gateway.checks.early_talker import EarlyTalkers
from gateway.checks.engines import EMBEDDED, Engine, parse_engine
from gateway.checks.fullness import Fullness
from gateway.checks.greylist import Greylist, GreylistSettings
from gateway.checks.links import Links
from gateway.checks.memory import Memory
from gateway.checks.names import Names, ReverseDns
from gateway.checks.rates import Rates
from gateway.checks.recipients import KeepSettings, RelayRecipients
from gateway.checks.reputation import Reputations
from gateway.checks.rspamd import Rspamd
from gateway.checks.runner import Check, Checks
from gateway.checks.seen import SeenSenders
from gateway.checks.senderauth import Arc, Dkim, Dmarc, Spf
from gateway.checks.spam import Spam
from gateway.checks.spamd import Spamd
from gateway.checks.usage import Usage, UsageSettings
from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.delivery.probe import Prober
from gateway.delivery.relay import Relay
from gateway.mailbox.quota import used
from gateway.policy.context import MessageFacts
from gateway.process import Process, directory_of, quotas_of, relay_of, resolver_of
from gateway.quarantine.release import Scanned
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_state import SqliteState


@dataclass(slots=True)
class SmtpChecks:
    source: Checks
    memory: Memory
    authentication: Dmarc
    _relay: Relay
    _state: SqliteState
    _clamds: Clamds | None
    _spam: Spam

    async def close(self) -> None:
        await self._spam.close()
        if self._clamds is not None:
            self._clamds.close()
        await self._relay.close()
        await asyncio.to_thread(self._state.close)


def spam_engines(config: Config) -> tuple[Engine, ...]:
    """Those before the embedded one, in order."""
    settings = config.checks.spam
    password = ""
    if settings.rspamd_password_file is not None:
        path = config.path(settings.rspamd_password_file)
        try:
            password = path.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"checks.spam.rspamd_password_file: {path}: {error}") from error
    found: list[Engine] = []
    for address in map(parse_engine, settings.engines):
        if address.kind == EMBEDDED:
            break
        if address.kind == "rspamd":
            found.append(Rspamd(address.url, settings.engine_timeout, password))
        else:
            found.append(Spamd(address.host, address.port, settings.engine_timeout))
    return tuple(found)


class Scanner:
    """Looks for viruses in what is released, with the engines that look into what comes in."""

    def __init__(self, process: Process) -> None:
        self._clamds = _clamds(process)
        self._antivirus = Antivirus(ContentClient(process.shared.content.getsockname()), self._clamds)

    async def __call__(self, message: MessageFacts) -> Scanned:
        found = await self._antivirus.scan(message)
        return Scanned(found.name, found.is_partial)

    def close(self) -> None:
        if self._clamds is not None:
            self._clamds.close()


def _clamds(process: Process) -> Clamds | None:
    settings, results = process.shared.config.checks.antivirus, process.metrics.check_results
    addresses = tuple(parse_clamd(text) for text in settings.clamd)
    if not addresses:
        return None
    return Clamds(addresses, settings.timeout, lambda result: results.labels("clamd", result).inc())


def make_checks(process: Process) -> SmtpChecks:
    config, metrics = process.shared.config, process.metrics
    settings, resolver = config.checks, resolver_of(process)
    state = SqliteState(config.data / "state.db")
    relay = relay_of(config, resolver, lambda connection: None)
    prober = Prober(relay, process.shared.routes)
    spf, dkim, arc = Spf(resolver), Dkim(resolver), Arc(resolver)
    dmarc = Dmarc(resolver, spf, dkim, arc, settings.dmarc.timeout)
    greylist = Greylist(state, spf, GreylistSettings(settings.greylist.delay, settings.greylist.keep))
    rates, seen, links = Rates(process.shared.counters), SeenSenders(state), Links()

    def on_health(zone: str, is_up: bool) -> None:
        metrics.dnsbl_up.labels(zone).set(is_up)

    content = ContentClient(process.shared.content.getsockname())
    clamds = _clamds(process)

    def on_engine(engine: str, result: str) -> None:
        metrics.check_results.labels(engine, result).inc()

    spam = Spam(content, spam_engines(config), on_engine)
    reverse = ReverseDns(resolver)
    lists = DnsLists(resolver, on_health)
    keep = KeepSettings(settings.recipients.keep_existing, settings.recipients.keep_missing)
    checks: dict[str, Check] = {
        "content": Content(content),
        "antivirus": Antivirus(content, clamds),
        "spam": spam,
        "reverse_dns": reverse,
        "names": Names(resolver),
        "dnsbl": lists,
        "dnswl": lists,
        "uribl": UriLists(resolver, links, on_health),
        "rhsbl": DomainLists(resolver, reverse, on_health),
        "urls": links,
        "greylist": greylist,
        "rates": rates,
        "spf": spf,
        "dkim": dkim,
        "arc": arc,
        "dmarc": dmarc,
        "seen": seen,
        "early_talker": EarlyTalkers(settings.early_talker.delay),
        "recipients": RelayRecipients(prober.probe, state, keep),
    }
    reputations = Reputations(state, spf, settings.reputation.half_life)
    usage = Usage(state, UsageSettings(settings.usage.floor, settings.usage.factor, settings.usage.keep))
    checks |= {"reputation": reputations, "usage": usage}
    accounts = SqliteAccounts(config.data / "accounts.db")
    limit = quotas_of(config, accounts).limit
    checks["fullness"] = Fullness(directory_of(config, accounts), limit, partial(used, config.data / "mail"))
    deadlines = {name: getattr(settings, name).timeout for name in checks}
    # The engines have their own deadline; the answer of all of them may take that of the slowest.
    deadlines["antivirus"] = max(settings.antivirus.timeout, settings.content.timeout) + 1
    return SmtpChecks(
        Checks(checks, deadlines, metrics),
        Memory(rates, greylist, seen, reputations, usage),
        dmarc,
        relay,
        state,
        clamds,
        spam,
    )
