"""access(5) tables as conditions in the order in which Postfix would find them: the first that holds decides.

Of several keys that fit, the most specific comes first: a whole address, a domain before the domains above it, these
before a local part; a client's name before its address, a network before the networks around it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_network

from gateway.core.address import parse_domain, parse_mailbox
from gateway.postfix.drafts import Drafts, conjunction, disjunction, negation
from gateway.postfix.tables import Entry, Pattern, Table, TableKind

MAX_RESULTS = 60  # different results of one table; of more the texts are left out
MAX_CONDITION = 3000  # characters
MAX_CHUNK = 700  # of one pattern
_WHOLE = {"client": "client.name", "helo": "helo.name", "sender": "sender.address", "recipient": "recipient.address"}


@dataclass(frozen=True, slots=True)
class Manner:
    """takes_subdomains: parent_domain_matches_subdomains has smtpd_access_maps; delimiters: of tags."""

    takes_subdomains: bool
    delimiters: str


@dataclass(frozen=True, slots=True)
class Found:
    """A condition and what stands behind it. unknown_matches: it holds also where its look-up failed."""

    when: str
    result: str
    unknown_matches: bool = False


def results_of(table: Table, subject: str, name: str, drafts: Drafts, manner: Manner) -> Iterator[Found]:
    """In their order. name: what lists are called after."""
    for remark in table.remarks:
        drafts.remark(f"{table.source}: {remark}")
    match table.kind:
        case TableKind.STATIC:
            yield Found("true", table.entries[0].result)
        case TableKind.PATTERNS:
            facts = ("client.name", "client.ip") if subject == "client" else (_WHOLE[subject],)
            for fact in facts:  # the name through the whole table, then the address
                yield from _merged((_pattern_condition(entry, fact), entry.result) for entry in table.entries)
        case TableKind.NETWORKS:
            yield from _by_networks(table.entries, name, drafts)
        case TableKind.KEYS:
            yield from _by_keys(table.entries, subject, name, drafts, manner)


def _merged(pairs: Iterable[tuple[str, str]]) -> Iterator[Found]:
    """Neighbours with the same result as one condition, as long as that is not too long."""
    held: list[str] = []
    last = ""
    for when, result in pairs:
        if held and (result != last or sum(map(len, held)) + len(when) > MAX_CONDITION):
            yield Found(disjunction(held), last)
            held = []
        held.append(when)
        last = result
    if held:
        yield Found(disjunction(held), last)


def _pattern_condition(entry: Entry, fact: str) -> str:
    parts = []
    for each in entry.patterns:
        part = matching(fact, each)
        if fact == "sender.address":
            # Postfix looks for the null sender as <>.
            is_null = each.matches("<>")
            part = f"sender.is_null or {part}" if is_null else f"{part} and not sender.is_null"
        parts.append(part)
    return conjunction(*parts)


def matching(fact: str, pattern: Pattern) -> str:
    text = _matches(fact, pattern.regex)
    return f"not {text}" if pattern.is_negated else text


def _matches(fact: str, regex: str | None) -> str:
    return f"matches({fact}, {json.dumps(regex, ensure_ascii=False)})"


def tagged(fact: str, addresses: Iterable[str], delimiters: str) -> Iterator[str]:
    """Conditions of which one holds for each of these addresses with a tag; none where there are no tags."""
    if not delimiters:
        return
    tag = f"[{_escaped(delimiters)}][^@]*@"
    for chunk in _chunks([_escaped(each).replace("\\@", "@").replace("@", tag) for each in addresses]):
        yield _matches(fact, f"(?i)^(?:{chunk})$")


def _by_networks(entries: tuple[Entry, ...], name: str, drafts: Drafts) -> Iterator[Found]:
    held: list[str] = []
    last = ""
    for entry in entries:
        is_plain = not entry.is_negated and not entry.networks
        if held and (not is_plain or entry.result != last):
            yield Found(drafts.membership("client.ip", f"{name} {_word(last)}", "networks", held), last)
            held = []
        if is_plain:
            held.append(entry.key)
            last = entry.result
        else:
            within = [_in_network(network, is_negated=negated) for network, negated in entry.networks]
            yield Found(conjunction(*within, _in_network(entry.key, is_negated=entry.is_negated)), entry.result)
    if held:
        yield Found(drafts.membership("client.ip", f"{name} {_word(last)}", "networks", held), last)


def _in_network(network: str, *, is_negated: bool) -> str:
    condition = f'client.ip in ["{network}"]'
    if not is_negated:
        return condition
    family = "::/0" if ":" in network else "0.0.0.0/0"  # of another family than the network: no match either way
    return conjunction(f'client.ip in ["{family}"]', negation(condition))


# --- keys -----------------------------------------------------------------------------------------------------------


def _by_keys(entries: tuple[Entry, ...], subject: str, name: str, drafts: Drafts, manner: Manner) -> Iterator[Found]:
    if len({entry.result for entry in entries}) > MAX_RESULTS:
        drafts.remark(f"{name}: over {MAX_RESULTS} different results: their texts are left out")
        entries = tuple(Entry(entry.key, _bare(entry.result)) for entry in entries)
    levels: dict[tuple[_Sort, int], dict[str, list[str]]] = {}
    for entry in entries:
        level = _level(entry.key, subject, manner)
        if level is None:
            drafts.remark(f"{name}: the key {entry.key[:80]!r} fits nothing here")
        else:
            levels.setdefault(level, {}).setdefault(entry.result, []).append(entry.key)
    for level, results in sorted(levels.items()):
        for result, keys in results.items():
            for when, unknown in _conditions(level[0], keys, result, subject, name, drafts, manner):
                yield Found(when, result, unknown)


def _bare(result: str) -> str:
    """A result without its text."""
    match = re.match(r"\s*(?:(\d{3}\b)|(\w+))", result)
    if match is None:
        return result
    return f"{match[1]} 4.7.1 x".replace("4.7.1", f"{match[1][0]}.7.1") if match[1] else match[2]


class _Sort(IntEnum):
    """Of keys; the smaller is looked up sooner."""

    NULL = 0
    ADDRESS = 1
    DOMAIN = 2
    LOCAL = 3
    NETWORK = 4
    NAMELESS = 5


def _level(key: str, subject: str, manner: Manner) -> tuple[_Sort, int] | None:
    """What a key is, and how specific: the smaller, the sooner it is found. None: nobody asks for it."""
    if subject in ("sender", "recipient"):
        if key == "<>":
            return (_Sort.NULL, 0) if subject == "sender" else None
        if "@" in key:
            local, _, domain = key.rpartition("@")
            if not domain:
                return (_Sort.LOCAL, 0) if local else None
            is_tagged = any(char in local for char in manner.delimiters)
            return (_Sort.ADDRESS, 0 if is_tagged else 1) if local and _is_valid(key, parse_mailbox) else None
    if subject == "client":
        if key == "unknown":
            return _Sort.NAMELESS, -1
        network = _network(key)
        if network is not None:
            return _Sort.NETWORK, -network[1]
    if manner.takes_subdomains and key.startswith("."):
        return None  # with smtpd_access_maps among parent_domain_matches_subdomains nobody asks for it
    plain = key.removeprefix(".")
    if not _is_valid(plain, parse_domain):
        return None
    return _Sort.DOMAIN, -2 * plain.count(".") + key.startswith(".")


def _conditions(
    sort: _Sort, keys: list[str], result: str, subject: str, name: str, drafts: Drafts, manner: Manner
) -> Iterator[tuple[str, bool]]:
    stem = f"{name} {_word(result)}"
    match sort:
        case _Sort.NULL:
            yield "sender.is_null", False
        case _Sort.ADDRESS:
            yield drafts.membership(f"{subject}.address", stem, "addresses", keys), False
            for when in tagged(f"{subject}.address", keys, manner.delimiters):
                yield when, False
        case _Sort.DOMAIN:
            fact = {"client": "client.name", "helo": "helo.name"}.get(subject, f"{subject}.domain")
            dotted = [f".{key}" if manner.takes_subdomains and not key.startswith("[") else key for key in keys]
            yield drafts.membership(fact, f"{stem} domains", "domains", dotted), False
        case _Sort.LOCAL:
            tag = f"(?:[{_escaped(manner.delimiters)}].*)?" if manner.delimiters else ""
            for chunk in _chunks([_escaped(key[:-1]) for key in keys]):
                yield _matches(f"{subject}.local", f"(?i)^(?:{chunk}){tag}$"), False
        case _Sort.NETWORK:
            networks = [found[0] for key in keys if (found := _network(key)) is not None]
            yield drafts.membership("client.ip", f"{stem} networks", "networks", networks), False
        case _Sort.NAMELESS:
            yield "not client.name", True


def _chunks(patterns: list[str]) -> Iterator[str]:
    held: list[str] = []
    for pattern in patterns:
        if held and sum(map(len, held)) + len(pattern) > MAX_CHUNK:
            yield "|".join(held)
            held = []
        held.append(pattern)
    if held:
        yield "|".join(held)


def _escaped(text: str) -> str:
    """For RE2, whose escapes are of ASCII punctuation only."""
    return "".join(char if char.isalnum() or not char.isascii() else f"\\{char}" for char in text)


def _is_valid(text: str, parse: Callable[[str], object]) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _network(key: str) -> tuple[str, int] | None:
    """`192.0.2.7`, `192.0.2`, `2001:db8:1`: an address, or the network of its leading parts; and its prefix length."""
    text = key.strip("[]")
    try:
        if re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){0,2}", text):
            parts = text.split(".")
            found = ip_network(f"{'.'.join([*parts, *['0'] * (4 - len(parts))])}/{8 * len(parts)}")
        elif "/" in text:
            return None  # indexed tables know no prefixes
        elif re.fullmatch(r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}", text) and ":" in text:
            found = ip_network(f"{text}::/{16 * len(text.split(':'))}")
        else:
            found = ip_network(text)
    except ValueError:
        return None
    return str(found), found.prefixlen


def _word(result: str) -> str:
    return result.split(None, 1)[0] if result.split() else "x"
