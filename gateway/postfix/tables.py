"""Postfix's look-up tables in their text form (DATABASE_README): keys, networks, patterns.

What lives in a database server or is computed by a program cannot be read here: Unreadable says so.
"""

import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

from gateway.postfix.maincf import MainCf, logical_lines, split

_INDEXED = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash"})
_PATTERN = re.compile(
    r"(!?)\s*(?P<quote>[^\w\s])(?P<regex>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)(?P<flags>[a-zA-Z]*)\s*(.*)"
)


class Unreadable(Exception):
    """The text says why."""


class TableKind(Enum):
    KEYS = "keys"  # exact keys; whoever asks tries several
    NETWORKS = "networks"  # the first that matches
    PATTERNS = "patterns"  # the first that matches
    STATIC = "static"  # one answer for all


@dataclass(frozen=True, slots=True)
class Pattern:
    """RE2 text, with its flags inside."""

    regex: str
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """key: a key or a network; patterns: all must match (those of enclosing `if`s too)."""

    key: str
    result: str
    patterns: tuple[Pattern, ...] = ()
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    source: str
    kind: TableKind
    entries: tuple[Entry, ...]


def is_table(word: str) -> bool:
    return bool(re.match(r"(?:proxy:)?[a-z]+:", word)) and "::" not in word[:4]


def read_table(cf: MainCf, source: str) -> Table:
    """source: `hash:/etc/postfix/x`. Raises Unreadable."""
    kind, _, place = source.removeprefix("proxy:").partition(":")
    if kind in _INDEXED:
        return Table(source, TableKind.KEYS, tuple(_keys(read_file(cf, place))))
    match kind:
        case "cidr":
            return Table(source, TableKind.NETWORKS, tuple(_networks(read_file(cf, place))))
        case "regexp" | "pcre":
            return Table(source, TableKind.PATTERNS, tuple(_patterns(read_file(cf, place))))
        case "inline":
            return Table(source, TableKind.KEYS, tuple(_inline(place)))
        case "static":
            return Table(source, TableKind.STATIC, (Entry("", place.strip("{}").strip()),))
        case "unix" if place == "passwd.byname":
            return Table(source, TableKind.KEYS, tuple(Entry(each.pw_name, "x") for each in pwd.getpwall()))
        case _:
            raise Unreadable(f"{source}: tables of the type {kind} cannot be read here")


def read_file(cf: MainCf, place: str) -> str:
    """Raises Unreadable."""
    path = cf.folder / place
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def _keys(text: str) -> Iterator[Entry]:
    for line in logical_lines(text):
        key, _, result = line.partition("\t") if "\t" in line.split(" ", 1)[0] else line.partition(" ")
        yield Entry(key.strip().strip('"').removesuffix(":").lower(), result.strip())


def _networks(text: str) -> Iterator[Entry]:
    for line in logical_lines(text):
        key, _, result = line.replace("\t", " ").partition(" ")
        try:
            network = str(ip_network(key.removeprefix("!"), strict=False))
        except ValueError:
            continue
        yield Entry(network, result.strip(), is_negated=key.startswith("!"))


def _patterns(text: str) -> Iterator[Entry]:
    enclosing: list[Pattern] = []
    for line in logical_lines(text):
        word, _, rest = line.partition(" ")
        if word.lower().startswith("endif"):
            del enclosing[-1:]
            continue
        is_if = word.lower() == "if"
        match = _PATTERN.match(rest.strip() if is_if else line)
        if match is None:
            continue
        pattern = Pattern(_flagged(match["regex"], match["flags"]), bool(match[1]))
        if is_if:
            enclosing.append(pattern)
        else:
            yield Entry("", match[5].strip(), (*enclosing, pattern))


def _flagged(regex: str, flags: str) -> str:
    """Postfix's patterns ignore case unless the flag `i` turns that off."""
    return regex if "i" in flags else f"(?i){regex}"


def _inline(place: str) -> Iterator[Entry]:
    for word in split(place.strip().removeprefix("{").removesuffix("}")):
        key, _, result = word.strip("{}").partition("=")
        yield Entry(key.strip().lower(), result.strip())
