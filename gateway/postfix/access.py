"""access(5) tables as conditions: which keys are asked for, and in which order, and what stands behind them.

Of several keys that fit, the most specific decides. Conditions of one table's results are made to exclude each other.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from gateway.core.address import parse_domain, parse_mailbox
from gateway.postfix.drafts import Drafts, conjunction, disjunction, negation
from gateway.postfix.tables import Entry, Table, TableKind

MAX_TAGGED = 50  # addresses of one result that are also looked for with a tag
_WHOLE = {"client": "client.name", "helo": "helo.name", "sender": "sender.address", "recipient": "recipient.address"}


@dataclass(frozen=True, slots=True)
class Manner:
    """takes_subdomains: parent_domain_matches_subdomains has smtpd_access_maps; delimiters: of tags."""

    takes_subdomains: bool
    delimiters: str


@dataclass(slots=True)
class _Keys:
    """The keys of one result, by what they are."""

    result: str
    addresses: list[str]
    domains: list[str]
    locals: list[str]
    networks: list[str]
    has_null: bool = False


def results_of(table: Table, subject: str, name: str, drafts: Drafts, manner: Manner) -> Iterator[tuple[str, str]]:
    """Condition and result for each result of the table; name: what its lists are called after."""
    match table.kind:
        case TableKind.STATIC:
            yield "true", table.entries[0].result
        case TableKind.PATTERNS:
            yield from _ordered((_pattern_condition(entry, subject), entry.result) for entry in table.entries)
        case TableKind.NETWORKS:
            yield from _ordered((_network_condition(entry), entry.result) for entry in table.entries)
        case TableKind.KEYS:
            yield from _by_keys(table.entries, subject, name, drafts, manner)


def _ordered(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The first that matches decides, also where it says that nothing shall happen."""
    before: list[str] = []
    for condition, result in pairs:
        yield conjunction(condition, negation(disjunction(before)) if before else ""), result
        before.append(condition)


def _pattern_condition(entry: Entry, subject: str) -> str:
    def of(fact: str) -> str:
        parts = [f"matches({fact}, {json.dumps(each.regex)})" for each in entry.patterns]
        signed = [
            f"not {part}" if pattern.is_negated else part for part, pattern in zip(parts, entry.patterns, strict=True)
        ]
        return " and ".join(signed)

    if subject == "client":
        return f"{of('client.name')} or {of('client.ip')}"
    return of(_WHOLE[subject])


def _network_condition(entry: Entry) -> str:
    condition = f'client.ip in ["{entry.key}"]'
    if not entry.is_negated:
        return condition
    family = "::/0" if ":" in entry.key else "0.0.0.0/0"  # of another family than the network: no match either way
    return conjunction(f'client.ip in ["{family}"]', negation(condition))


def _by_keys(
    entries: tuple[Entry, ...], subject: str, name: str, drafts: Drafts, manner: Manner
) -> Iterator[tuple[str, str]]:
    groups: dict[str, _Keys] = {}
    for entry in entries:
        group = groups.setdefault(entry.result, _Keys(entry.result, [], [], [], []))
        if not _sort_in(group, entry.key, subject, manner):
            drafts.remark(f"{name}: the key {entry.key!r} fits nothing here")
    for group in groups.values():
        others = [other for other in groups.values() if other is not group]
        parts = list(_parts(group, others, subject, name, drafts, manner))
        if parts:
            yield disjunction(parts), group.result


def _sort_in(group: _Keys, key: str, subject: str, manner: Manner) -> bool:
    if key == "<>":
        group.has_null = True
        return subject == "sender"
    if subject in ("sender", "recipient") and "@" in key:
        local, _, domain = key.rpartition("@")
        if not domain:
            group.locals.append(local)
            return bool(local)
        if not local or not _is_valid(key, parse_mailbox):
            return False
        group.addresses.append(key)
        return True
    if subject == "client" and (network := _network(key)) is not None:
        group.networks.append(str(network))
        return True
    domain = key
    if manner.takes_subdomains:
        if key.startswith("."):
            return False  # with smtpd_access_maps among parent_domain_matches_subdomains nobody asks for it
        domain = f".{key}" if _is_name(key) else key
    if not _is_valid(domain.removeprefix("."), parse_domain):
        return False
    group.domains.append(domain)
    return True


def _is_name(key: str) -> bool:
    return not key.startswith("[")


def _is_valid(text: str, parse: object) -> bool:
    try:
        parse(text)  # type: ignore[operator]
    except ValueError:
        return False
    return True


def _network(key: str) -> IPv4Network | IPv6Network | None:
    """`192.0.2.7`, `192.0.2`, `2001:db8:1`: an address, or the network of its leading parts."""
    text = key.strip("[]")
    try:
        return ip_network(text)
    except ValueError:
        pass
    if re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){0,2}", text):
        parts = text.split(".")
        return ip_network(f"{'.'.join([*parts, *['0'] * (4 - len(parts))])}/{8 * len(parts)}")
    if re.fullmatch(r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}", text) and ":" in text:
        return ip_network(f"{text}::/{16 * len(text.split(':'))}")
    return None


def _parts(group: _Keys, others: list[_Keys], subject: str, name: str, drafts: Drafts, manner: Manner) -> Iterator[str]:
    if group.has_null:
        yield "sender.is_null"
    if group.addresses:
        yield _addresses(group.addresses, subject, name, drafts, manner)
    if group.domains:
        fact = {"client": "client.name", "helo": "helo.name"}.get(subject, f"{subject}.domain")
        nearer = [domain for other in others for domain in other.domains if _is_under(domain, group.domains)]
        exact = [each for other in others for each in other.addresses]
        yield conjunction(
            drafts.membership(fact, f"{name} {_word(group.result)} domains", "domains", group.domains),
            negation(drafts.membership(fact, f"{name} nearer domains", "domains", nearer)) if nearer else "",
            negation(_addresses(exact, subject, name, drafts, manner)) if exact else "",
        )
    if group.locals:
        domains = [each for other in others for each in other.domains]
        exact = [each for other in others for each in other.addresses]
        yield conjunction(
            _locals(group.locals, subject, manner),
            negation(drafts.membership(f"{subject}.domain", f"{name} domains", "domains", domains)) if domains else "",
            negation(_addresses(exact, subject, name, drafts, manner)) if exact else "",
        )
    if group.networks:
        nearer = [each for other in others for each in other.networks if _is_inside(each, group.networks)]
        names = [each for other in others for each in other.domains]
        yield conjunction(
            drafts.membership("client.ip", f"{name} {_word(group.result)} networks", "networks", group.networks),
            negation(drafts.membership("client.ip", f"{name} nearer networks", "networks", nearer)) if nearer else "",
            negation(drafts.membership("client.name", f"{name} names", "domains", names)) if names else "",
        )


def _word(result: str) -> str:
    return result.partition(" ")[0] or "x"


def _addresses(addresses: list[str], subject: str, name: str, drafts: Drafts, manner: Manner) -> str:
    """With their tags: `user+tag@domain` is asked for as such, and then as `user@domain`."""
    fact = f"{subject}.address"
    condition = drafts.membership(fact, f"{name} addresses", "addresses", addresses)
    if not manner.delimiters:
        return condition
    if len(addresses) > MAX_TAGGED:
        drafts.remark(f"{name}: its {len(addresses)} addresses are not looked for with tags")
        return condition
    tag = f"[{re.escape(manner.delimiters)}][^@]*@"
    tagged = "|".join(re.escape(each).replace("@", tag) for each in addresses)
    return disjunction([condition, f"matches({fact}, {json.dumps(f'(?i)^(?:{tagged})$')})"])


def _locals(names: list[str], subject: str, manner: Manner) -> str:
    tag = f"(?:[{re.escape(manner.delimiters)}].*)?" if manner.delimiters else ""
    regex = f"(?i)^(?:{'|'.join(map(re.escape, names))}){tag}$"
    return f"matches({subject}.local, {json.dumps(regex)})"


def _is_under(domain: str, above: list[str]) -> bool:
    """Strictly below one of them."""
    name = domain.removeprefix(".")
    return any(each.startswith(".") and name.endswith(each) for each in above) or any(
        each.removeprefix(".") == name and each != domain for each in above
    )


def _is_inside(text: str, networks: list[str]) -> bool:
    """Strictly inside one of them."""
    inner = ip_network(text)
    return any(
        outer.version == inner.version
        and outer.prefixlen < inner.prefixlen
        and inner.supernet(new_prefix=outer.prefixlen) == outer
        for outer in map(ip_network, networks)
    )
