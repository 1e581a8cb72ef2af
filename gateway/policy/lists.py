"""Lists of a policy: `lists/NAME.KIND`, one entry a line, # comments. Look-up cost does not grow with the list."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from gateway.core.address import parse_domain, parse_mailbox, unmapped
from gateway.core.errors import ConfigError

_COMMENT = re.compile(r"(?:^|\s)#.*")
KINDS = ("networks", "domains", "addresses", "words")


class NetworkSet:
    """Addresses by prefix: one dict look-up for each prefix length in use."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        found: dict[int, dict[int, set[int]]] = {0: {}, 4: {}, 6: {}}
        for network in map(_plain_network, networks):
            shift = network.max_prefixlen - network.prefixlen
            found[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)
        self._by_prefix = {version: tuple(by_shift.items()) for version, by_shift in found.items()}

    def __contains__(self, text: object) -> bool:
        number, version = _number_of(str(text))
        for shift, numbers in self._by_prefix[version]:  # noqa: SIM110  # `any` costs twice as much
            if number >> shift in numbers:
                return True
        return False


def network_set(texts: Iterable[str]) -> NetworkSet:
    """Raises ValueError."""
    return NetworkSet(map(ip_network, texts))


@lru_cache(maxsize=16384)
def _number_of(text: str) -> tuple[int, int]:
    """An address as number and version, IPv4-mapped ones as IPv4; version 0 for what is no address."""
    try:
        address = unmapped(ip_address(text))
    except ValueError:
        return 0, 0
    return int(address), address.version


def _plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """IPv4-mapped IPv6 networks as what they stand for."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))


class DomainSet:
    """An entry is exact; with a leading dot it takes the subdomains too."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._below: set[str] = set()
        for entry in entries:
            name = parse_domain(entry.removeprefix(".")).ascii
            self._exact.add(name)
            if entry.startswith("."):
                self._below.add(name)

    def __contains__(self, text: object) -> bool:
        name = str(text).lower()
        if name in self._exact:
            return True
        while "." in name:
            name = name.partition(".")[2]
            if name in self._below:
                return True
        return False


class AddressSet:
    """Whole addresses; case does not count."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = {str(parse_mailbox(entry)).lower() for entry in entries}

    def __contains__(self, text: object) -> bool:
        return str(text).lower() in self._entries


class WordSet:
    """Any texts; case does not count."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = {entry.lower() for entry in entries}

    def __contains__(self, text: object) -> bool:
        return str(text).lower() in self._entries


Entries = NetworkSet | DomainSet | AddressSet | WordSet


@dataclass(frozen=True, slots=True)
class NamedList:
    name: str
    kind: str
    entries: Entries
    path: Path


def load_lists(folder: Path) -> dict[str, NamedList]:
    """All lists of a policy folder by name. Raises ConfigError naming every wrong name, and entry with file:line."""
    found: dict[str, NamedList] = {}
    errors: list[str] = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        name, dot, kind = path.name.rpartition(".")
        if path.name.startswith(".") or path.is_dir():
            continue
        if not dot or kind not in KINDS or not name.replace("-", "_").isidentifier():
            errors.append(f"{path}: a list is named NAME.KIND, KIND one of {', '.join(KINDS)}")
        elif name in found:
            errors.append(f"{path}: the list {name} exists already: {found[name].path}")
        else:
            try:
                found[name] = NamedList(name, kind, _load(path, kind), path)
            except ConfigError as error:
                errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return found


def _load(path: Path, kind: str) -> Entries:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    entries = [(number, entry) for number, line in enumerate(text.splitlines(), 1) if (entry := _entry(line))]
    try:
        return build(kind, [entry for _, entry in entries])
    except ValueError:
        raise ConfigError("\n".join(_wrong(path, kind, entries))) from None


def _entry(line: str) -> str:
    """A comment begins the line or follows a blank: `#` may be part of an address or a word."""
    return _COMMENT.sub("", line).strip()


def _wrong(path: Path, kind: str, entries: list[tuple[int, str]]) -> Iterator[str]:
    for number, entry in entries:
        try:
            build(kind, [entry])
        except ValueError as error:
            yield f"{path}:{number}:1: {entry!r}: {error}"


def build(kind: str, entries: Iterable[str]) -> Entries:
    """Raises ValueError when an entry is not of the kind."""
    match kind:
        case "networks":
            return network_set(entries)
        case "domains":
            return DomainSet(entries)
        case "addresses":
            return AddressSet(entries)
        case _:
            return WordSet(entries)
