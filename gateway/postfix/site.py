"""Whom a Postfix serves: its domains by class (ADDRESS_CLASS_README), its people and aliases, its way out."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gateway.core.address import parse_domain, parse_mailbox
from gateway.postfix.drafts import Drafts
from gateway.postfix.maincf import MainCf
from gateway.postfix.tables import (
    Entry,
    Pattern,
    TableKind,
    Unreadable,
    aliases_of,
    is_table,
    read_file,
    read_table,
)

MAX_EXCLUDED = 200  # networks
_NEXT_HOP = re.compile(r"(?:(?P<transport>\w+):)?\[?(?P<host>[^\]:\s]+|[^\]\s]*:[^\]\s]*)\]?(?::(?P<port>\w+))?")
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
    relay_excluded: list[str] = field(default_factory=list)  # as DomainSet has them
    takes_any_local: bool = False
    takes_any_virtual: bool = False
    listed: list[str] = field(default_factory=list)  # addresses that virtual_alias_maps names
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
    _read_people(cf, site, drafts)
    if "virtual_alias_domains" not in cf:
        # Its default is what virtual_alias_maps has a key of its own for.
        plain = (key for key in _keys_of(cf, "virtual_alias_maps", drafts) if "@" not in key and "." in key)
        site.virtual_alias = [key for key in plain if key not in taken and is_domain(key)]
    _read_relay_domains(cf, site, {*taken, *site.virtual_alias}, drafts)
    _read_relay(cf, site, drafts)
    return site


# --- domains and networks -------------------------------------------------------------------------------------------


def _networks(cf: MainCf, drafts: Drafts) -> list[str]:
    """First match wins: what was excluded before is taken out of what comes after. What cannot be read includes nobody,
    and as an exclusion leaves nobody in.
    """
    if "mynetworks" not in cf:
        return ["127.0.0.0/8", "::1/128"]
    found: list[IPv4Network | IPv6Network] = []
    excluded: list[IPv4Network | IPv6Network] = []
    for word in cf.words("mynetworks"):
        is_out, plain_word = word.startswith("!"), word.removeprefix("!")
        try:
            networks = list(_networks_of(cf, plain_word))
        except (Unreadable, ValueError) as error:
            drafts.remark(f"mynetworks: {word}: {error}")
            if is_out:
                drafts.remark("mynetworks: an exclusion cannot be read, so no network is trusted")
                return []
            continue
        if is_out:
            excluded += networks
            if len(excluded) > MAX_EXCLUDED:
                drafts.remark(f"mynetworks: over {MAX_EXCLUDED} exclusions, so no network is trusted")
                return []
            continue
        for one in excluded:
            networks = [rest for network in networks for rest in _without(network, one)]
        found += networks
    return [str(network) for network in dict.fromkeys(found)]


def _networks_of(cf: MainCf, word: str) -> Iterator[IPv4Network | IPv6Network]:
    """Raises Unreadable; ValueError for a network with host bits, which Postfix takes for an error too."""
    if word.startswith("/"):
        for line in read_file(cf, word).split("\n"):
            for each in line.split("#")[0].split():
                if each.startswith("!") or is_table(each):
                    raise Unreadable(f"{each} in a file")
                yield _network(each)
        return
    if not is_table(word):
        yield _network(word)
        return
    table = read_table(cf, word)
    if table.remarks or table.kind not in (TableKind.NETWORKS, TableKind.KEYS):
        raise Unreadable("a table that is more than a list of networks")
    for entry in table.entries:
        if entry.is_negated or entry.networks:
            raise Unreadable("a table with exclusions or conditions")
        if table.kind is TableKind.KEYS and "/" in entry.key:
            continue  # nobody asks an indexed table for a prefix
        yield _network(entry.key)


def _network(text: str) -> IPv4Network | IPv6Network:
    """`192.0.2.0/24`, `[2001:db8::]/32`. Raises ValueError."""
    match = re.fullmatch(r"\[?([0-9a-fA-F.:]+)\]?(?:/([0-9]{1,3}))?", text)
    if match is None:
        raise ValueError(f"{text} is no network")
    return ip_network(f"{match[1]}/{match[2]}" if match[2] else match[1])


def _without(network: IPv4Network | IPv6Network, one: IPv4Network | IPv6Network) -> Iterable[IPv4Network | IPv6Network]:
    if isinstance(network, IPv4Network) and isinstance(one, IPv4Network):
        return network.address_exclude(one) if one.subnet_of(network) else [] if network.subnet_of(one) else [network]
    if isinstance(network, IPv6Network) and isinstance(one, IPv6Network):
        return network.address_exclude(one) if one.subnet_of(network) else [] if network.subnet_of(one) else [network]
    return [network]


def _read_relay_domains(cf: MainCf, site: Site, taken: set[str], drafts: Drafts) -> None:
    """An excluded domain is refused by a rule, with its subdomains where they would be relayed."""
    takes_subdomains = "relay_domains" in cf.words("parent_domain_matches_subdomains")
    for word, is_out in _members(cf, "relay_domains", drafts):
        if not is_domain(word.removeprefix(".")):
            drafts.remark(f"relay_domains: {word} is no domain")
            continue
        dot = word.startswith(".")
        name = parse_domain(word.removeprefix(".")).ascii
        if is_out:
            site.relay_excluded.append(f".{name}" if takes_subdomains or dot else name)
        elif name in taken and not dot:
            continue
        elif takes_subdomains and not dot:  # then nobody asks for entries that begin with a dot
            site.relayed.append(f".{name}")
        elif not takes_subdomains:
            site.relayed.append(f".{name}" if dot else name)
    exact = {name for name in site.relayed if not name.startswith(".")}
    if not takes_subdomains:  # `.x` takes the subdomains of x, and not x
        site.relay_excluded += [name[1:] for name in site.relayed if name.startswith(".") and name[1:] not in exact]
    site.relayed = list(dict.fromkeys(site.relayed))


def _members(cf: MainCf, name: str, drafts: Drafts) -> Iterator[tuple[str, bool]]:
    """Entries of a list parameter, those of its files and tables among them; True: with `!`."""
    for word in cf.words(name):
        is_out, text = word.startswith("!"), word.removeprefix("!")
        try:
            if text.startswith("/"):
                for line in read_file(cf, text).split("\n"):
                    for each in line.split("#")[0].split():
                        yield each.removeprefix("!"), is_out or each.startswith("!")
            elif is_table(text):
                table = read_table(cf, text)
                if table.kind is not TableKind.KEYS:
                    drafts.remark(f"{name}: {text}: a list by patterns or networks cannot be had here")
                    continue
                yield from ((entry.key, is_out) for entry in table.entries if entry.key)
            else:
                yield text, is_out
        except Unreadable as error:
            drafts.remark(f"{name}: {error}")


def _domains(cf: MainCf, name: str, drafts: Drafts) -> list[str]:
    found: dict[str, None] = {}
    for word, is_out in _members(cf, name, drafts):
        if is_out or not is_domain(word):
            drafts.remark(f"{name}: {word} is no domain of ours")
            continue
        found[parse_domain(word).ascii] = None
    return list(found)


def is_domain(text: str) -> bool:
    try:
        return not parse_domain(text).is_literal
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
    for source in aliases:
        try:
            found = aliases_of(cf, source)
        except Unreadable as error:
            drafts.remark(str(error))
            continue
        for entry in found:
            for domain in site.local:
                if entry.patterns:
                    site.patterns.append((entry.patterns, ""))
                    break
                _add_alias(site, f"{entry.key}@{domain}", entry.result, domain, drafts)
    mailboxes = cf.words("virtual_mailbox_maps")
    site.takes_any_virtual = bool(site.virtual_mailbox) and (
        not mailboxes or any(word.removeprefix("proxy:").startswith("static:") for word in mailboxes)
    )
    for entry in _entries(cf, mailboxes, drafts):
        if entry.patterns:
            site.patterns.append((entry.patterns, ""))
        elif entry.key.startswith("@"):
            site.catch_alls[entry.key[1:]] = ""
        elif "@" in entry.key and is_mailbox(entry.key):
            site.people[entry.key] = None
    _read_virtual(cf, site, drafts)


def _read_virtual(cf: MainCf, site: Site, drafts: Drafts) -> None:
    """virtual(5): keys with an address, a local part of our own domains, or a whole domain."""
    for entry in _entries(cf, cf.words("virtual_alias_maps"), drafts):
        if entry.patterns:
            is_plain = "," not in entry.result and "$" not in entry.result and is_mailbox(entry.result)
            site.patterns.append((entry.patterns, entry.result if is_plain else ""))
            if not is_plain:
                drafts.remark(f"virtual_alias_maps: {entry.result}: mail goes to the address as it is")
        elif entry.key.startswith("@"):
            targets = [word.strip() for word in entry.result.split(",") if word.strip()]
            is_one = len(targets) == 1 and not targets[0].startswith("@") and is_mailbox(targets[0])
            if not is_one:
                drafts.remark(f"virtual_alias_maps: {entry.key} {entry.result}: mail goes to the address as it is")
            site.catch_alls[entry.key[1:]] = targets[0] if is_one else ""
        elif "@" in entry.key:
            site.listed.append(entry.key)
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
        for remark in table.remarks:
            drafts.remark(f"{source}: {remark}")
        if table.kind in (TableKind.KEYS, TableKind.PATTERNS):
            yield from table.entries
        elif source.removeprefix("proxy:") != "static:all":
            drafts.remark(f"{source}: one answer for all addresses is taken as: they all exist")


def _add_person(site: Site, name: str, domain: str) -> None:
    address = name if "@" in name else f"{name}@{domain}"
    if is_mailbox(address):
        site.people[address] = None


def _add_alias(site: Site, address: str, targets: str, domain: str, drafts: Drafts) -> None:
    if not is_mailbox(address):
        drafts.remark(f"alias {address}: no address")
        return
    found: list[str] = []
    for word in targets.replace(",", " ").split() if '"' not in targets else [targets]:
        target = word if "@" in word else f"{word}@{domain}"
        if _LOCAL_PART.fullmatch(word.partition("@")[0]) and is_mailbox(target):
            found.append(target.lower())
        else:
            drafts.remark(f"alias {address}: {word} is no address, and is left out")
    if not found:
        drafts.remark(f"alias {address}: {targets} is no address; its mail goes into an account of that name")
        site.people[address] = None
    elif found != [address]:
        site.aliases[address] = tuple(dict.fromkeys(found))
    else:
        site.people[address] = None


def is_mailbox(text: str) -> bool:
    try:
        parse_mailbox(text)
    except ValueError:
        return False
    return True


# --- the way out ----------------------------------------------------------------------------------------------------


def _read_relay(cf: MainCf, site: Site, drafts: Drafts) -> None:
    wanted = cf.words("relay_recipient_maps")
    if wanted and not any(word.removeprefix("proxy:").startswith("static:") for word in wanted):
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
    relayed = {name.removeprefix(".") for name in site.relayed}
    for entry in _entries(cf, cf.words("transport_maps"), drafts):
        name = entry.key.removeprefix(".")
        if name not in relayed or entry.patterns:
            drafts.remark(f"not translated: transport_maps: {entry.key} {entry.result}: see `route` in policies")
            continue
        hop = _next_hop(entry.result, f"transport_maps: {entry.key}", drafts)
        if hop:
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
    port = {"smtp": "25", "submission": "587", "smtps": "465", "submissions": "465"}.get(
        match["port"] or "smtp", match["port"]
    )
    try:
        is_address = re.fullmatch(r"[0-9.]+|.*:.*", match["host"])
        (ip_address if is_address else parse_domain)(match["host"])
    except ValueError as error:
        drafts.remark(f"{where}: {text}: {error}")
        return ""
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        drafts.remark(f"{where}: {text}: no port")
        return ""
    scheme = {"587": "submission", "465": "submissions"}.get(port, "smtp")
    return f"{scheme}:[{match['host']}]:{port}" if ":" in match["host"] else f"{scheme}:{match['host']}:{port}"
