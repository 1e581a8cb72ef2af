"""Postfix's look-up tables in their text form (DATABASE_README): keys, networks, patterns.

What lives in a database server or is computed by a program cannot be read here: Unreadable says so.
"""

import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_network

import re2

from gateway.postfix.maincf import MainCf, logical_lines, plain, split

MAX_OCTETS = 16 * 1024 * 1024
MAX_PATTERN = 900
_INDEXED = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash"})
_TYPES = _INDEXED | {
    "cidr", "regexp", "pcre", "inline", "static", "unix", "proxy", "mysql", "pgsql", "ldap", "sqlite", "memcache",
    "tcp", "socketmap", "nis", "netinfo", "environ", "fail", "randmap", "pipemap", "unionmap", "internal", "mongodb",
}  # fmt: skip
_PATTERN = re.compile(
    r"(!?)\s*(?P<quote>[^\w\s])(?P<regex>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)(?P<flags>[a-zA-Z]*)"
    r"(?:!(?P=quote)(?P<but>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)(?P<but_flags>[a-zA-Z]*))?(?:\s+(?P<result>.*))?"
)
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


class Unreadable(Exception):
    """The text says why."""


class TableKind(Enum):
    KEYS = "keys"  # exact keys; whoever asks tries several
    NETWORKS = "networks"  # the first that matches
    PATTERNS = "patterns"  # the first that matches
    STATIC = "static"  # one answer for all


@dataclass(frozen=True, slots=True)
class Pattern:
    """RE2 text, with its flags inside; None: nothing matches (it cannot be read, so what hangs on it is left out)."""

    regex: str | None
    is_negated: bool = False

    def matches(self, text: str) -> bool:
        if self.regex is None:
            return False
        return bool(re2.compile(self.regex, _OPTIONS).search(text)) != self.is_negated  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Entry:
    """key: a key or a network; patterns: all must match, those of enclosing `if`s too; networks: of enclosing `if`s."""

    key: str
    result: str
    patterns: tuple[Pattern, ...] = ()
    is_negated: bool = False
    networks: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """remarks: lines that could not be read."""

    source: str
    kind: TableKind
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...] = ()


def is_table(word: str) -> bool:
    return word.partition(":")[0] in _TYPES


def read_table(cf: MainCf, source: str) -> Table:
    """source: `hash:/etc/postfix/x`. Raises Unreadable."""
    kind, _, place = source.removeprefix("proxy:").partition(":")
    wrong: list[str] = []
    if kind in _INDEXED:
        return Table(source, TableKind.KEYS, _first_of_each(_keys(read_file(cf, place))))
    match kind:
        case "cidr":
            return Table(source, TableKind.NETWORKS, tuple(_networks(read_file(cf, place), wrong)), tuple(wrong))
        case "regexp" | "pcre":
            entries = tuple(_patterns(read_file(cf, place), kind, wrong))
            return Table(source, TableKind.PATTERNS, entries, tuple(wrong))
        case "inline":
            return Table(source, TableKind.KEYS, _first_of_each(_inline(place)))
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
        info = path.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_OCTETS:
            raise Unreadable(f"{path}: no file of at most {MAX_OCTETS} octets")
        return plain(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def aliases_of(cf: MainCf, source: str) -> tuple[Entry, ...]:
    """An aliases(5) table: `name: targets`, the colon with blanks around it or none. Raises Unreadable."""
    kind, _, place = source.removeprefix("proxy:").partition(":")
    if kind not in _INDEXED:
        return read_table(cf, source).entries
    found = []
    for line in logical_lines(read_file(cf, place)):
        match = re.fullmatch(r'("[^"]*"|[^\s:]+)\s*:\s*(.*)', line)
        if match is not None:
            found.append(Entry(match[1].strip('"').lower(), match[2]))
    return _first_of_each(iter(found))


def _first_of_each(entries: Iterator[Entry]) -> tuple[Entry, ...]:
    """Of a key that is there twice Postfix keeps the first."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry.key, entry)
    return tuple(found.values())


def _keys(text: str) -> Iterator[Entry]:
    for line in logical_lines(text):
        key, *rest = line.split(None, 1)
        yield Entry(key.strip('"').lower(), rest[0].strip() if rest else "")


def _networks(text: str, wrong: list[str]) -> Iterator[Entry]:
    """A condition that cannot be read holds for nobody."""
    enclosing: list[tuple[str, bool]] = []
    for line in logical_lines(text):
        words = line.replace("! ", "!").split(None, 1)
        if words[0].lower() == "endif":
            del enclosing[-1:]
            continue
        is_if = words[0].lower() == "if"
        if is_if:
            words = words[1].split(None, 1) if len(words) > 1 else [""]
        key = words[0].removeprefix("!")
        try:
            network = str(ip_network(key)) if re.fullmatch(r"[0-9a-fA-F.:]+(?:/\d{1,3})?", key) else ""
        except ValueError:
            network = ""
        if not network:
            wrong.append(f"{line[:100]!r} is no network")
        if is_if:
            enclosing.append((network, words[0].startswith("!")))
        elif network and all(each for each, _ in enclosing):
            result = words[1].strip() if len(words) > 1 else ""
            yield Entry(network, result, is_negated=words[0].startswith("!"), networks=tuple(enclosing))


def _patterns(text: str, kind: str, wrong: list[str]) -> Iterator[Entry]:
    enclosing: list[Pattern] = []
    for line in logical_lines(text):
        word, *rest = line.split(None, 1)
        if word.lower() == "endif":
            del enclosing[-1:]
            continue
        is_if = word.lower() == "if"
        match = _PATTERN.fullmatch((rest[0] if rest else "") if is_if else line)
        pattern = Pattern(None) if match is None else _pattern(match["regex"], match["flags"], match[1], kind)
        if pattern.regex is None:
            wrong.append(f"{line[:100]!r} is no pattern that can be had here")
        if is_if:
            enclosing.append(pattern)
            continue
        if match is None:
            continue
        patterns = [*enclosing, pattern]
        if match["but"] is not None:  # /this/!/and not that/
            patterns.append(_pattern(match["but"], match["but_flags"], "!", kind))
        if all(each.regex is not None for each in patterns):
            yield Entry("", (match["result"] or "").strip(), tuple(patterns))


def _pattern(regex: str, flags: str, sign: str, kind: str) -> Pattern:
    """Postfix's patterns ignore case unless the flag `i` turns that off."""
    if set(flags) - set("imsM" if kind == "pcre" else "im") or len(regex) > MAX_PATTERN:
        return Pattern(None)
    whole = regex if "i" in flags else f"(?i){regex}"
    try:
        re2.compile(whole, _OPTIONS)  # type: ignore[no-untyped-call]
    except (re2.error, UnicodeError):
        return Pattern(None)
    return Pattern(whole, sign == "!")


def _inline(place: str) -> Iterator[Entry]:
    for word in split(place.strip().removeprefix("{").removesuffix("}")):
        key, _, result = word.strip("{}").partition("=")
        yield Entry(key.strip().lower(), result.strip())
