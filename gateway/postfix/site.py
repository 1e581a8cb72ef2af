"""Whom a Postfix serves: its domains by class (ADDRESS_CLASS_README), its people and aliases, its way out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.core.address import parse_domain, parse_mailbox
from gateway.postfix.drafts import Drafts
from gateway.postfix.maincf import MainCf
from gateway.postfix.tables import Entry, Pattern, TableKind, Unreadable, is_table, read_file, read_table

_NEXT_HOP = re.compile(r"(?:(?P<transport>\w+):)?\[?(?P<host>[^\]:\s]+|[^\]\s]*:[^\]\s]*)\]?(?::(?P<port>\d+))?")
_LOCAL_PART = re.compile(r"[^\s@|/:\"]+")


@dataclass
class Site:
    """Domains by class; people and aliases by address.

    relay_recipients: None where all addresses of relay domains exist; patterns: recipients that are told by a pattern,
    and whom they lead to, if that is one address; catch_alls: domains, and whom all else there leads to.
    """

    trusted: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    virtual_alias: list[str] = field(default_factory=list)
    virtual_mailbox: list[str] = field(default_factory=list)
    relayed: list[str] = field(default_factory=list)
    takes_any_local: bool = False
    people: dict[str, None] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    relay_recipients: list[str] | None = None
    relay_patterns: list[tuple[Pattern, ...]] = field(default_factory=list)
    patterns: list[tuple[tuple[Pattern, ...], str]] = field(default_factory=list)
    catch_alls: dict[str, str] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)  # domain to `smtp:HOST:PORT`
    default_route: str = ""

    @property
    def domains(self) -> list[str]:
        return list(dict.fromkeys([*self.local, *self.virtual_alias, *self.virtual_mailbox]))


def read_site(cf: MainCf, drafts: Drafts) -> Site:
    site = Site(trusted=_networks(cf, drafts))
    site.local = _domains(cf, "mydestination", drafts)
    site.virtual_mailbox = _domains(cf, "virtual_mailbox_domains", drafts)
    if "virtual_alias_domains" in cf:
        site.virtual_alias = _domains(cf, "virtual_alias_domains", drafts)
    taken = {*site.local, *site.virtual_mailbox, *site.virtual_alias}
    subdomains = "relay_domains" in cf.words("parent_domain_matches_subdomains")
    relayed = [name for name in _domains(cf, "relay_domains", drafts) if name not in taken]
    if subdomains:  # then nobody asks for entries that begin with a dot
        relayed = [f".{name}" for name in relayed if not name.startswith(".")]
    site.relayed = relayed
    _read_people(cf, site, drafts)
    if "virtual_alias_domains" not in cf:
        # Its default is what virtual_alias_maps has a key of its own for.
        plain = (key for key in _keys_of(cf, "virtual_alias_maps", drafts) if "@" not in key and "." in key)
        site.virtual_alias = [key for key in plain if key not in taken and _is_domain(key)]
    _read_relay(cf, site, drafts)
    return site


# --- domains and networks -------------------------------------------------------------------------------------------


def _networks(cf: MainCf, drafts: Drafts) -> list[str]:
    if "mynetworks" not in cf:
        return ["127.0.0.0/8", "::1/128"]
    found: list[IPv4Network | IPv6Network] = []
    taken_out: list[IPv4Network | IPv6Network] = []
    for word, is_out in _members(cf, "mynetworks", drafts):
        text = word.replace("[", "").replace("]", "")
        try:
            (taken_out if is_out else found).append(ip_network(text, strict=False))
        except ValueError:
            drafts.remark(f"mynetworks: {word} is no network")
    for one in taken_out:
        found = [rest for network in found for rest in _without(network, one)]
    return [str(network) for network in dict.fromkeys(found)]


def _without(network: IPv4Network | IPv6Network, one: IPv4Network | IPv6Network) -> Iterable[IPv4Network | IPv6Network]:
    if isinstance(network, IPv4Network) and isinstance(one, IPv4Network):
        return network.address_exclude(one) if one.subnet_of(network) else [] if network.subnet_of(one) else [network]
    if isinstance(network, IPv6Network) and isinstance(one, IPv6Network):
        return network.address_exclude(one) if one.subnet_of(network) else [] if network.subnet_of(one) else [network]
    return [network]


def _members(cf: MainCf, name: str, drafts: Drafts) -> Iterator[tuple[str, bool]]:
    """Entries of a list parameter, those of its files and tables among them; True: with `!`."""
    for word in cf.words(name):
        is_out, plain = word.startswith("!"), word.removeprefix("!")
        try:
            if plain.startswith("/"):
                lines = (line.split("#")[0].split() for line in read_file(cf, plain).splitlines())
                yield from ((each.removeprefix("!"), is_out or each.startswith("!")) for line in lines for each in line)
            elif is_table(plain):
                yield from ((entry.key, is_out) for entry in read_table(cf, plain).entries if entry.key)
            else:
                yield plain, is_out
        except Unreadable as error:
            drafts.remark(f"{name}: {error}")


def _domains(cf: MainCf, name: str, drafts: Drafts) -> list[str]:
    found: dict[str, None] = {}
    for word, is_out in _members(cf, name, drafts):
        if is_out or not _is_domain(word):
            drafts.remark(f"{name}: {word} is no domain of ours")
            continue
        found[("." if word.startswith(".") else "") + parse_domain(word.removeprefix(".")).ascii] = None
    return list(found)


def _is_domain(text: str) -> bool:
    try:
        return not parse_domain(text.removeprefix(".")).is_literal
    except ValueError:
        return False


# --- people ---------------------------------------------------------------------------------------------------------


def _read_people(cf: MainCf, site: Site, drafts: Drafts) -> None:
    aliases = cf.words("alias_maps")
    wanted = cf.words("local_recipient_maps")
    site.takes_any_local = not wanted
    for entry in _entries(cf, [table for table in wanted if table not in aliases], drafts):
        for domain in site.local:
            if entry.patterns:
                site.patterns.append((entry.patterns, ""))
                break
            _add_person(site, entry.key, domain)
    for entry in _entries(cf, aliases, drafts):
        for domain in site.local:
            _add_alias(site, f"{entry.key}@{domain}", entry.result, domain, drafts)
    for entry in _entries(cf, cf.words("virtual_mailbox_maps"), drafts):
        if entry.patterns:
            site.patterns.append((entry.patterns, ""))
        elif entry.key.startswith("@"):
            site.catch_alls[entry.key[1:]] = ""
        elif "@" in entry.key and _is_mailbox(entry.key):
            site.people[entry.key] = None
    _read_virtual(cf, site, drafts)


def _read_virtual(cf: MainCf, site: Site, drafts: Drafts) -> None:
    """virtual(5): keys with an address, a local part of our own domains, or a whole domain."""
    for entry in _entries(cf, cf.words("virtual_alias_maps"), drafts):
        if entry.patterns:
            is_plain = "," not in entry.result and "$" not in entry.result and _is_mailbox(entry.result)
            site.patterns.append((entry.patterns, entry.result if is_plain else ""))
            if not is_plain:
                drafts.remark(f"virtual_alias_maps: {entry.result}: mail goes to the address as it is")
        elif entry.key.startswith("@"):
            first = entry.result.split(",")[0].strip()
            site.catch_alls[entry.key[1:]] = first if _is_mailbox(first) else ""
        elif "@" in entry.key:
            _add_alias(site, entry.key, entry.result, entry.key.rpartition("@")[2], drafts)
        elif "." not in entry.key:
            for domain in site.local:
                _add_alias(site, f"{entry.key}@{domain}", entry.result, domain, drafts)


def _keys_of(cf: MainCf, name: str, drafts: Drafts) -> list[str]:
    return [entry.key for entry in _entries(cf, cf.words(name), drafts)]


def _entries(cf: MainCf, tables: Iterable[str], drafts: Drafts) -> Iterator[Entry]:
    for source in tables:
        try:
            table = read_table(cf, source)
        except Unreadable as error:
            drafts.remark(str(error))
            continue
        if table.kind in (TableKind.KEYS, TableKind.PATTERNS):
            yield from table.entries


def _add_person(site: Site, name: str, domain: str) -> None:
    address = name if "@" in name else f"{name}@{domain}"
    if _is_mailbox(address):
        site.people[address] = None


def _add_alias(site: Site, address: str, targets: str, domain: str, drafts: Drafts) -> None:
    if not _is_mailbox(address):
        drafts.remark(f"alias {address}: no address")
        return
    found = []
    for word in targets.replace(",", " ").split() if '"' not in targets else [targets]:
        target = word if "@" in word else f"{word}@{domain}"
        if _LOCAL_PART.fullmatch(word.partition("@")[0]) and _is_mailbox(target):
            found.append(target.lower())
    if not found:
        drafts.remark(f"alias {address}: {targets} is no address; its mail goes into an account of that name")
        site.people[address] = None
    elif found != [address]:
        site.aliases[address] = tuple(dict.fromkeys(found))
    else:
        site.people[address] = None


def _is_mailbox(text: str) -> bool:
    try:
        parse_mailbox(text)
    except ValueError:
        return False
    return True


# --- the way out ----------------------------------------------------------------------------------------------------


def _read_relay(cf: MainCf, site: Site, drafts: Drafts) -> None:
    if cf.words("relay_recipient_maps"):
        site.relay_recipients = []
        for entry in _entries(cf, cf.words("relay_recipient_maps"), drafts):
            if entry.patterns:
                site.relay_patterns.append(entry.patterns)
            elif entry.key:
                site.relay_recipients.append(entry.key)
    site.default_route = _next_hop(cf.get("relayhost"), "relayhost", drafts)
    if cf.get("relay_transport").count(":"):
        hop = _next_hop(cf.get("relay_transport"), "relay_transport", drafts)
        site.routes.update({name: hop for name in site.relayed if hop})
    for entry in _entries(cf, cf.words("transport_maps"), drafts):
        name = entry.key.removeprefix(".")
        hop = _next_hop(entry.result, f"transport_maps: {entry.key}", drafts)
        if hop and name and "@" not in name and _is_domain(name):
            site.routes[name] = hop


def _next_hop(text: str, where: str, drafts: Drafts) -> str:
    """`smtp:HOST:PORT`, or "" for none."""
    text = text.strip()
    match = _NEXT_HOP.fullmatch(text)
    if not text or match is None or (match["transport"] or "smtp") not in ("smtp", "relay", "submission", "smtps"):
        if text:
            drafts.remark(f"{where}: {text} is no host that mail is handed to by SMTP")
        return ""
    if "[" not in text:
        drafts.remark(f"{where}: {text}: without brackets Postfix asks for its MX; here the host itself is meant")
    port = match["port"] or "25"
    scheme = {"587": "submission", "465": "submissions"}.get(port, "smtp")
    return f"{scheme}:[{match['host']}]:{port}" if ":" in match["host"] else f"{scheme}:{match['host']}:{port}"
