"""From a main.cf to a folder: smarthost.toml, the policy, and the commands that make its people and aliases."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.postfix.access import Manner
from gateway.postfix.actions import Kind, coded
from gateway.postfix.drafts import Draft, Drafts, conjunction, disjunction, negation, render
from gateway.postfix.facts import Refusal
from gateway.postfix.maincf import MainCf
from gateway.postfix.postscreen import add_postscreen
from gateway.postfix.restrictions import DEFER_IF_PERMIT, HOLD, Translation
from gateway.postfix.site import Site, read_site
from gateway.postfix.tables import Pattern

_FILES = {
    "connect": "10-connect.yaml", "helo": "20-helo.yaml", "sender": "30-sender.yaml", "recipient": "40-recipient.yaml",
    "message": "50-message.yaml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Imported:
    """files: texts by their path in the folder; remarks: what a person should look at."""

    files: dict[str, str]
    remarks: tuple[str, ...]


def convert(main_cf: Path) -> Imported:
    """Raises ConfigError."""
    cf, drafts = MainCf(main_cf), Drafts()
    site = read_site(cf, drafts)
    takes_subdomains = "smtpd_access_maps" in cf.words("parent_domain_matches_subdomains")
    manner = Manner(takes_subdomains, cf.get("recipient_delimiter"))
    refusals = list(_unlisted(cf, site, drafts))
    unlisted = Refusal(disjunction(each.when for each in refusals), refusals[0].act)
    _redirect(site, drafts)
    add_postscreen(cf, drafts)
    translation = Translation(cf, drafts, manner, unlisted)
    translation.run()
    if _asks_for(drafts, DEFER_IF_PERMIT):
        when = f'"{DEFER_IF_PERMIT}" in marks'
        drafts.add("recipient", Draft("defer", "defer_if_permit", when, "450 4.7.1 Try again later"))
    if cf.is_on("smtpd_reject_unlisted_sender"):
        reply = "550 5.1.0 <{sender.address}>: Sender address rejected: User unknown"
        drafts.add("sender", Draft("reject", "smtpd_reject_unlisted_sender", "not sender.exists", reply))
    if cf.is_on("smtpd_reject_unlisted_recipient"):
        for each in refusals:
            action = "reject" if each.act.kind is Kind.REJECT else "defer"
            drafts.add("recipient", Draft(action, "smtpd_reject_unlisted_recipient", each.when, each.act.reply))
    if _asks_for(drafts, HOLD):
        drafts.add("recipient", Draft("hold", "HOLD", f'"{HOLD}" in marks'))
    files = {f"policies/{_FILES[stage]}": render(stage, rules) for stage, rules in drafts.rules.items()}
    files |= {f"policies/lists/{name}": "\n".join(entries) + "\n" for name, entries in drafts.lists.items()}
    files["smarthost.toml"] = _toml(cf, site, uses_probe=translation.uses_probe)
    files["addresses.sh"] = _addresses(site)
    return Imported(files, tuple(drafts.remarks))


def _asks_for(drafts: Drafts, mark: str) -> bool:
    """Does some restriction ask for what is done only when all others were tried?"""
    return any(f"mark: {mark}" in draft.effects for rules in drafts.rules.values() for draft in rules)


# --- who exists -------------------------------------------------------------------------------------------------------


def _unlisted(cf: MainCf, site: Site, drafts: Drafts) -> Iterator[Refusal]:
    """What refuses recipients that do not exist, by class of domain; the most common code first."""
    spared = disjunction([*(_matched(patterns) for patterns, _ in site.patterns), *_caught(site)])
    but = negation(spared) if spared else ""
    code = cf.get("unknown_local_recipient_reject_code")
    text = "5.1.1 <{recipient.address}>: Recipient address rejected: User unknown"
    own = [name for name in site.local if name not in site.virtual_mailbox]
    if site.takes_any_local and own:
        here = drafts.membership("recipient.domain", "mydestination", "domains", own)
        when = conjunction("recipient.is_local", "not recipient.exists", negation(here), but)
        yield Refusal(when, coded("550", text))
        yield Refusal("false", coded("550", text))
    elif code.startswith("4") and own:
        here = drafts.membership("recipient.domain", "mydestination", "domains", own)
        yield Refusal(
            conjunction("recipient.is_local", "not recipient.exists", negation(here), but), coded("550", text)
        )
        yield Refusal(conjunction(here, "not recipient.exists", but), coded(code, text.removeprefix("5.1.1 ")))
    else:
        yield Refusal(conjunction("recipient.is_local", "not recipient.exists", but), coded("550", text))
    roles = _unlisted_roles(site)
    if roles:
        when = conjunction(drafts.membership("recipient.address", "unlisted roles", "addresses", roles), but)
        yield Refusal(when, coded("550", text))
    if site.relay_recipients is not None and site.relayed:
        known = disjunction(_relay_known(site, drafts, cf.get("recipient_delimiter")))
        code = cf.get("unknown_relay_recipient_reject_code")
        yield Refusal(conjunction("recipient.is_relayed", negation(known or "false"), but), coded(code, text))


def _unlisted_roles(site: Site) -> list[str]:
    """Postfix takes mail for postmaster and abuse only where they are listed; our directory has them always."""
    wanted = [f"{role}@{domain}" for domain in site.domains for role in ("postmaster", "abuse")]
    implicit = {f"postmaster@{domain}" for domain in site.local}
    caught = {address for address in wanted if address.rpartition("@")[2] in site.catch_alls}
    known = {*site.people, *site.aliases, *implicit, *caught}
    return [] if site.takes_any_local else [address for address in wanted if address not in known]


def _relay_known(site: Site, drafts: Drafts, delimiters: str) -> Iterator[str]:
    listed = site.relay_recipients or []
    addresses = [key for key in listed if "@" in key and not key.startswith("@")]
    domains = [key[1:] for key in listed if key.startswith("@")]
    if addresses:
        yield drafts.membership("recipient.address", "relay recipients", "addresses", addresses)
        if delimiters:
            tagged = "|".join(
                f"{_escaped(local)}[{_escaped(delimiters)}][^@]*@{_escaped(domain)}"
                for local, _, domain in (address.rpartition("@") for address in addresses)
            )
            yield f"matches(recipient.address, {json.dumps(f'(?i)^(?:{tagged})$')})"
    if domains:
        yield drafts.membership("recipient.domain", "relay recipient domains", "domains", domains)
    yield from (_matched(patterns) for patterns in site.relay_patterns)
    if site.aliases:
        elsewhere = [address for address in site.aliases if address.rpartition("@")[2] not in site.domains]
        if elsewhere:
            yield drafts.membership("recipient.address", "aliased", "addresses", elsewhere)


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() else f"\\{char}" for char in text)


def _matched(patterns: tuple[Pattern, ...]) -> str:
    parts = (
        f"{'not ' if pattern.is_negated else ''}matches(recipient.address, {json.dumps(pattern.regex)})"
        for pattern in patterns
    )
    return " and ".join(parts)


def _caught(site: Site) -> list[str]:
    return [f"recipient.domain == {json.dumps(domain)}" for domain in site.catch_alls]


def _redirect(site: Site, drafts: Drafts) -> None:
    """Aliases that our directory has not: by pattern, of a whole domain, of domains that are not local."""
    for patterns, target in site.patterns:
        if target:
            when = conjunction(_matched(patterns), "not (recipient.is_local and recipient.exists)")
            effect = f"redirect: {json.dumps(target)}"
            drafts.add("recipient", Draft("note", f"alias by pattern: {target}", when, effects=(effect,)))
    for domain, target in site.catch_alls.items():
        if target:
            when = conjunction(f"recipient.domain == {json.dumps(domain)}", "not recipient.exists")
            effect = f"redirect: {json.dumps(target)}"
            drafts.add("recipient", Draft("note", f"all else of {domain}", when, effects=(effect,)))
    for address, targets in site.aliases.items():
        if address.rpartition("@")[2] in site.domains:
            continue
        when = f"recipient.address == {json.dumps(address)}"
        copies = [f"bcc: {json.dumps(target)}" for target in targets[1:2]]
        effects = (f"redirect: {json.dumps(targets[0])}", *copies)
        drafts.add("recipient", Draft("note", f"alias {address}", when, effects=effects))
        if len(targets) > 2:
            drafts.remark(f"alias {address}: only the first two of its targets get mail")


# --- the files --------------------------------------------------------------------------------------------------------


def _toml(cf: MainCf, site: Site, *, uses_probe: bool) -> str:
    delimiter = cf.get("recipient_delimiter")
    lines = [
        "# Made by `smarthost policy import-postfix`. Listeners, TLS and paths are yours to add: see `smarthost init`.",
        "[gateway]",
        f"hostname = {json.dumps(cf.get('myhostname'))}",
        f"recipient_delimiter = {json.dumps(delimiter[:1])}",
        "",
        "[networks]",
        f"trusted = {json.dumps(site.trusted)}",
        "",
    ]
    if limits := list(_limits(cf)):
        lines += ["[limits]", *limits, ""]
    lines += [f'[domains."{domain}"]' for domain in site.domains]
    for domain in site.relayed:
        lines.append(f'[relay_domains."{domain}"]')
        hop = site.routes.get(domain) or site.routes.get(domain.removeprefix("."))
        lines += [f"host = {json.dumps(hop)}"] if hop else []
        lines += ['recipients = "probe"'] if uses_probe else []
    if site.default_route:
        lines += ["", "[routes.default]", f"host = {json.dumps(site.default_route)}"]
        if cf.get("smtp_sasl_password_maps"):
            lines.append("# username and password_file: as in smtp_sasl_password_maps")
    return "\n".join(lines) + "\n"


def _limits(cf: MainCf) -> Iterator[str]:
    names = {
        "message_size_limit": "size",
        "smtpd_recipient_limit": "recipients",
        "smtpd_client_connection_count_limit": "connections_by_address",
    }
    for name, key in names.items():
        value = cf.get(name)
        if name in cf and value.isdigit() and int(value) > 0:
            yield f"{key} = {value}"


def _addresses(site: Site) -> str:
    lines = ["#!/bin/sh", "# The people and aliases of this Postfix. Each account will ask for its password.", "set -e"]
    own = set(site.domains)
    aliases = {each: targets for each, targets in site.aliases.items() if each.rpartition("@")[2] in own}
    lines += [
        shlex.join(["smarthost", "user", "add", address])
        for address in site.people
        if address.rpartition("@")[2] in own and address not in aliases
    ]
    lines += [shlex.join(["smarthost", "alias", "add", each, *targets]) for each, targets in aliases.items()]
    return "\n".join(lines) + "\n"
