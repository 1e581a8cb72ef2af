"""Functions over values, such as `matches(message.subject, "(?i)invoice")`: no fact of their own, no cost.

Regular expressions run on RE2, whose time is linear in the text whatever the pattern.
"""

from collections.abc import Callable
from dataclasses import dataclass

import re2

from gateway.policy.comparison import Node
from gateway.policy.values import Evaluate, Kind, lifted_one

MAX_PATTERN = 1000  # characters
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 2 << 20  # octets for one pattern's program and cache; more is refused at load

_TEXTS = frozenset({Kind.TEXT, Kind.NONE})
_WRITTEN = _TEXTS | {Kind.IP}  # an address as it is written


@dataclass(frozen=True, slots=True)
class PureFunction:
    """parameters: the kinds that each may have; build: from compiled arguments, raises ValueError."""

    kind: Kind
    parameters: tuple[frozenset[Kind], ...]
    build: Callable[..., Evaluate]
    usage: str
    description: str


def _matches(text: Node, pattern: Node) -> Evaluate:
    if not isinstance(pattern.constant, str):
        raise ValueError("the pattern is a literal text")
    if any(ord(char) < 32 and char not in "\t\n\r" for char in pattern.constant):
        raise ValueError('a control character in the pattern: write r"\\b", or "\\\\b", for a word\'s edge')
    if len(pattern.constant) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
    try:
        search = re2.compile(pattern.constant, _OPTIONS).search  # type: ignore[no-untyped-call]
    except re2.error as error:
        raise ValueError(f"no regular expression (RE2): {_reason(error)}") from None

    def found(value: str | None) -> bool:
        try:
            return value is not None and search(value) is not None
        except UnicodeEncodeError:  # lone surrogates of octets that are no UTF-8
            return search(str(value).encode("utf-8", "replace").decode()) is not None

    return lifted_one(found, text.run)


def _reason(error: Exception) -> str:
    found = error.args[0] if error.args else error
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def _lower(text: Node) -> Evaluate:
    return lifted_one(lambda value: None if value is None else value.lower(), text.run)


def _count(elements: Node) -> Evaluate:
    if elements.entries is not None or elements.literals is not None:
        raise ValueError("a list that is a fact is wanted")
    return lifted_one(len, elements.run)


def _starts_with(text: Node, start: Node) -> Evaluate:
    if not isinstance(start.constant, str):
        raise ValueError("the second is a literal text")
    wanted = start.constant
    return lifted_one(lambda value: value is not None and value.startswith(wanted), text.run)


def _ends_with(text: Node, end: Node) -> Evaluate:
    if not isinstance(end.constant, str):
        raise ValueError("the second is a literal text")
    wanted = end.constant
    return lifted_one(lambda value: value is not None and value.endswith(wanted), text.run)


PURE = {
    "matches": PureFunction(
        Kind.BOOL, (_WRITTEN, _TEXTS), _matches, "a text and a literal pattern", "does a regular expression match?"
    ),
    "starts_with": PureFunction(Kind.BOOL, (_TEXTS, _TEXTS), _starts_with, "a text and a literal text", "its start"),
    "ends_with": PureFunction(Kind.BOOL, (_TEXTS, _TEXTS), _ends_with, "a text and a literal text", "its end"),
    "lower": PureFunction(Kind.TEXT, (_TEXTS,), _lower, "a text", "in lower case"),
    "count": PureFunction(Kind.NUMBER, (frozenset({Kind.LIST, Kind.RECORDS}),), _count, "a list", "how many elements"),
}
