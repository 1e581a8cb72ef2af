"""From a main.cf to a folder: smarthost.toml, the policy, and the commands that make its people and aliases."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.postfix.access import Manner, matching, tagged
from gateway.postfix.actions import Kind, coded
from gateway.postfix.drafts import Draft, Drafts, conjunction, disjunction, negation
from gateway.postfix.facts import Refusal
from gateway.postfix.ignored import remark_ignored
from gateway.postfix.maincf import MainCf
from gateway.postfix.postscreen import add_postscreen
from gateway.postfix.restrictions import DEFER_IF_PERMIT, HOLD, Translation
from gateway.postfix.site import Site, is_domain, is_mailbox, read_site
from gateway.postfix.tables import Pattern
from gateway.postfix.written import load_what_is_written

LISTED, RELAY_LISTED, REDIRECTED = (
    "listed",
    "relay-listed",
    "redirected",
)  # marks of recipients that are known by something else than an account


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
    _exclude(site, drafts)
    _mark_known(site, drafts, cf.get("recipient_delimiter"))
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
    remark_ignored(cf, drafts)
    files = load_what_is_written(drafts)
    files["smarthost.toml"] = _toml(cf, site, drafts, uses_probe=translation.uses_probe)
    files["addresses.sh"] = _addresses(site)
    return Imported(files, tuple(drafts.remarks))


def _asks_for(drafts: Drafts, mark: str) -> bool:
    """Does some restriction ask for what is done only when all others were tried?"""
    return any(f"mark: {mark}" in draft.effects for rules in drafts.rules.values() for draft in rules)


# --- who exists -------------------------------------------------------------------------------------------------------


def _unlisted(cf: MainCf, site: Site, drafts: Drafts) -> Iterator[Refusal]:
    """What refuses recipients that do not exist, by class of domain; the most common code first."""
    but = f'not ("{LISTED}" in marks)' if site.patterns or site.catch_alls else ""
    text = "5.1.1 <{recipient.address}>: Recipient address rejected: User unknown"
    missing = conjunction("recipient.is_local", "not recipient.exists", but)
    own = [name for name in site.local if name not in site.virtual_mailbox]
    code = cf.get("unknown_local_recipient_reject_code")
    anywhere = [*(own if site.takes_any_local else []), *(site.virtual_mailbox if site.takes_any_virtual else [])]
    if anywhere:
        spared = drafts.membership("recipient.domain", "takes any", "domains", anywhere)
        yield Refusal(conjunction(missing, negation(spared)), coded("550", text))
    elif code.startswith("4") and own:
        here = drafts.membership("recipient.domain", "mydestination", "domains", own)
        yield Refusal(conjunction(missing, negation(here)), coded("550", text))
        yield Refusal(conjunction(here, missing), coded(code, text))
    else:
        yield Refusal(missing, coded("550", text))
    roles = _unlisted_roles(site)
    if roles:
        when = conjunction(drafts.membership("recipient.address", "unlisted roles", "addresses", roles), but)
        yield Refusal(when, coded("550", text))
    if site.relay_recipients is not None and site.relayed:
        when = conjunction("recipient.is_relayed", f'not ("{RELAY_LISTED}" in marks)', but)
        yield Refusal(when, coded(cf.get("unknown_relay_recipient_reject_code"), text))


def _unlisted_roles(site: Site) -> list[str]:
    """Postfix takes mail for postmaster and abuse only where they are listed; our directory has them always."""
    wanted = [f"{role}@{domain}" for domain in site.domains for role in ("postmaster", "abuse")]
    implicit = {f"postmaster@{domain}" for domain in site.local}
    caught = {address for address in wanted if address.rpartition("@")[2] in site.catch_alls}
    known = {*site.people, *site.aliases, *implicit, *caught}
    return [] if site.takes_any_local else [address for address in wanted if address not in known]


def _mark_known(site: Site, drafts: Drafts, delimiters: str) -> None:
    """Who is known by a pattern, a whole domain or a list of another class than our directory's."""
    for number, (patterns, _) in enumerate(site.patterns, 1):
        drafts.add("recipient", _note(f"listed by pattern {number}", _matched(patterns), LISTED))
    if site.catch_alls:
        when = drafts.membership("recipient.domain", "catch-all domains", "domains", site.catch_alls)
        drafts.add("recipient", _note("listed by domain", when, LISTED))
    if site.relay_recipients is None or not site.relayed:
        return
    addresses = [key for key in site.relay_recipients if "@" in key and not key.startswith("@") and is_mailbox(key)]
    addresses += [address for address in site.aliases if address.rpartition("@")[2] not in set(site.domains)]
    domains = [key[1:] for key in site.relay_recipients if key.startswith("@") and is_domain(key[1:])]
    if addresses:
        when = drafts.membership("recipient.address", "relay recipients", "addresses", addresses)
        drafts.add("recipient", _note("relay recipients", when, RELAY_LISTED))
        for when in tagged("recipient.address", addresses, delimiters):
            drafts.add("recipient", _note("relay recipients with a tag", when, RELAY_LISTED))
    if domains:
        when = drafts.membership("recipient.domain", "relay recipient domains", "domains", domains)
        drafts.add("recipient", _note("relay recipients by domain", when, RELAY_LISTED))
    for number, patterns in enumerate(site.relay_patterns, 1):
        drafts.add("recipient", _note(f"relay recipients by pattern {number}", _matched(patterns), RELAY_LISTED))


def _note(name: str, when: str, mark: str) -> Draft:
    return Draft("note", name, when, effects=(f"mark: {mark}",))


def _matched(patterns: tuple[Pattern, ...]) -> str:
    return " and ".join(matching("recipient.address", each) for each in patterns)


def _redirect(site: Site, drafts: Drafts) -> None:
    """Aliases that our directory has not: by pattern, of a whole domain, of domains that are not local. The first that
    Postfix would find counts, and an address that is written down comes before all of them.
    """
    listed = drafts.membership("recipient.untagged", "virtual aliases", "addresses", site.listed) if site.listed else ""
    but = conjunction(f'not ("{REDIRECTED}" in marks)', negation(listed) if listed else "")
    for patterns, target in site.patterns:
        when = conjunction(_matched(patterns), but)
        effects = (*([_to("redirect", target)] if target else []), f"mark: {REDIRECTED}")
        drafts.add("recipient", Draft("note", f"alias by pattern: {target or 'as it is'}", when, effects=effects))
    for domain, target in site.catch_alls.items():
        if target:
            when = conjunction(f"recipient.domain == {json.dumps(domain, ensure_ascii=False)}", but)
            drafts.add("recipient", Draft("note", f"all else of {domain}", when, effects=(_to("redirect", target),)))
    own = set(site.domains)
    for address, targets in site.aliases.items():
        if address.rpartition("@")[2] in own:
            continue
        when = f"recipient.address == {json.dumps(address, ensure_ascii=False)}"
        effects = (_to("redirect", targets[0]), *(_to("bcc", target) for target in targets[1:2]))
        drafts.add("recipient", Draft("note", f"alias {address}", when, effects=effects))
        if len(targets) > 2:
            drafts.remark(f"alias {address}: only the first two of its targets get mail")


def _to(key: str, address: str) -> str:
    return f"{key}: {json.dumps(address, ensure_ascii=False)}"


def _exclude(site: Site, drafts: Drafts) -> None:
    if site.relay_excluded:
        where = drafts.membership("recipient.domain", "not relayed", "domains", site.relay_excluded)
        when = conjunction("recipient.is_relayed", "not (client.trusted or auth.user)", where)
        reply = "554 5.7.1 <{recipient.address}>: Relay access denied"
        drafts.add("recipient", Draft("reject", "relay_domains excludes it", when, reply))


# --- the files --------------------------------------------------------------------------------------------------------


def _routing(cf: MainCf, site: Site, drafts: Drafts) -> list[str]:
    """The domains that Postfix looks for `%` and `!` at; here that is both or none."""
    wanted = {cf.get("allow_percent_hack").lower(), cf.get("swap_bangpath").lower()}
    if len(wanted) > 1:
        drafts.remark("allow_percent_hack and swap_bangpath: neither % nor ! is followed, as only one of them is yes")
    return site.local if wanted == {"yes"} else []


def _toml(cf: MainCf, site: Site, drafts: Drafts, *, uses_probe: bool) -> str:
    delimiter, hostname = cf.get("recipient_delimiter")[:1], cf.get("myhostname")
    if not is_domain(hostname):
        drafts.remark(f"myhostname: {hostname!r} is no host name")
        hostname = "mail.example.org"
    if not delimiter.isascii() or delimiter.isspace():
        delimiter = ""
    lines = [
        "# Made by `smarthost policy import-postfix`. Listeners, TLS and paths are yours to add: see `smarthost init`.",
        "[gateway]",
        f"hostname = {json.dumps(hostname, ensure_ascii=False)}",
        f"recipient_delimiter = {json.dumps(delimiter)}",
        f"sender_specified_routing = {json.dumps(_routing(cf, site, drafts))}",
        "",
        "[networks]",
        f"trusted = {json.dumps(site.trusted)}",
        "",
    ]
    if cf.get("smtpd_delay_reject") == "no":
        lines += ["[policy]", 'answer = "early"', ""]
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
        if name in cf and re.fullmatch("[1-9][0-9]{0,11}", value) and (key == "size" or int(value) <= 1_000_000):
            yield f"{key} = {value}"


def _addresses(site: Site) -> str:
    lines = ["#!/bin/sh", "# The people and aliases of this Postfix. Each account will ask for its password.", "set -e"]
    own = set(site.domains)
    aliases = {each: targets for each, targets in site.aliases.items() if each.rpartition("@")[2] in own}
    lines += [
        shlex.join(["smarthost", "user", "add", "--", address])
        for address in site.people
        if address.rpartition("@")[2] in own and address not in aliases
    ]
    lines += [shlex.join(["smarthost", "alias", "add", "--", each, *targets]) for each, targets in aliases.items()]
    return "\n".join(lines) + "\n"
