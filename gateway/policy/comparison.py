"""Comparisons of the language: what may be compared with what, and the closures that do it."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.policy.lists import Entries, NamedList, build
from gateway.policy.syntax import Source, dotted, suggestion
from gateway.policy.values import Evaluate, Kind, lifted, lifted_one, negated


@dataclass(frozen=True, slots=True)
class Node:
    """One compiled part: its kind and how it is evaluated."""

    kind: Kind
    run: Evaluate
    constant: object = ...  # the value of a literal
    literals: tuple[object, ...] | None = None  # the elements of a list of literals
    entries: NamedList | None = None  # a @list
    words: tuple[str, ...] = ()  # all texts that it, or an element of it, can be, where they are few
    fields: Mapping[str, "RecordField"] = field(default_factory=dict)  # of the records of a RECORDS


@dataclass(frozen=True, slots=True)
class RecordField:
    kind: Kind
    words: tuple[str, ...] = ()
    description: str = ""


_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
# An address is never in a list of domains, nor a domain in one of addresses.
_NEVER = {
    "address": "domains",
    "untagged": "domains",
    "from_address": "domains",
    "domain": "addresses",
    "from_domain": "addresses",
}


def literal(value: object) -> Node:
    match value:
        case None:
            kind = Kind.NONE
        case bool():
            kind = Kind.BOOL
        case int() | float():
            kind = Kind.NUMBER
        case _:
            kind = Kind.TEXT
    return Node(kind, lambda context: value, constant=value)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(source: Source, op: ast.cmpop, left: Node, right: Node, exprs: tuple[ast.expr, ast.expr]) -> Evaluate:
    """exprs: both sides, for the place of an error. Raises ExpressionError."""
    left_expr, right_expr = exprs
    match op:
        case ast.In() | ast.NotIn() if left.kind is Kind.IP and right.kind is Kind.TEXT:
            raise source.error(right_expr, "compare an address by ==, or by `in` with a list of networks")
        case ast.In() | ast.NotIn():
            test = _membership(source, left, right, left_expr, right_expr)
            return test if isinstance(op, ast.In) else negated(test)
        case ast.Eq() | ast.NotEq():
            _check_alike(source, left, right, right_expr)
            _check_word(source, left.words or right.words, right.constant if left.words else left.constant, right_expr)
            if {left.kind, right.kind} == {Kind.IP, Kind.TEXT}:
                return _same_address(source, op, left, right, right_expr)
            return lifted(operator.eq if isinstance(op, ast.Eq) else operator.ne, left.run, right.run)
        case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
            return _ordering(source, _ORDER[type(op)], (left, right), exprs)
        case _:
            raise source.error(left_expr, "use == or in instead of is")


def _ordering(
    source: Source, order: Callable[[Any, Any], bool], sides: tuple[Node, Node], exprs: tuple[ast.expr, ast.expr]
) -> Evaluate:
    for side, expr in zip(sides, exprs, strict=True):
        if side.kind not in (Kind.NUMBER, Kind.NONE):
            raise source.error(expr, f"ordering wants numbers, this is {side.kind}")
    limit = sides[1].constant
    if is_number(limit):
        return lifted_one(lambda value: value is not None and order(value, limit), sides[0].run)

    def ordered(one: object, two: object) -> bool:
        return one is not None and two is not None and order(one, two)

    return lifted(ordered, sides[0].run, sides[1].run)


def _check_alike(source: Source, left: Node, right: Node, expr: ast.expr) -> None:
    kinds = {left.kind, right.kind}
    if Kind.LIST in kinds or Kind.RECORDS in kinds:
        raise source.error(expr, "compare with a list by `in`")
    if Kind.NONE in kinds or len(kinds) == 1 or kinds == {Kind.IP, Kind.TEXT}:
        return
    raise source.error(expr, f"cannot compare {left.kind} with {right.kind}")


def _check_word(source: Source, words: tuple[str, ...], value: object, expr: ast.expr) -> None:
    if words and value is None:
        raise source.error(expr, "it is never none" + (': write "none" in quotes' if "none" in words else ""))
    if words and isinstance(value, str) and value not in words:
        raise source.error(expr, f"`{value}` is none of {', '.join(words)}{suggestion(value, words)}")


def _same_address(source: Source, op: ast.cmpop, left: Node, right: Node, expr: ast.expr) -> Evaluate:
    """An address against a literal address."""
    fact, written = (left, right) if left.kind is Kind.IP else (right, left)
    if written.constant is ...:
        raise source.error(expr, "compare an address with a literal, or by `in` with a list of networks")
    if "/" in str(written.constant):
        raise source.error(expr, f"{written.constant} is a network: write `in [...]`")
    networks = _build(source, "networks", [written.constant], expr)
    test = lifted_one(lambda value: value in networks, fact.run)
    return test if isinstance(op, ast.Eq) else negated(test)


def _membership(source: Source, left: Node, right: Node, left_expr: ast.expr, right_expr: ast.expr) -> Evaluate:
    if right.entries is not None:
        return _in_list(source, left, right.entries, left_expr)
    if right.literals is not None:
        return _in_literals(source, left, right.literals, right_expr)
    if left.kind is Kind.TEXT and right.kind is Kind.TEXT:

        def contains(part: object, text: object) -> bool:
            return isinstance(part, str) and isinstance(text, str) and part in text

        return lifted(contains, left.run, right.run)
    if left.kind is Kind.TEXT and right.kind is Kind.LIST:
        _check_word(source, right.words, left.constant, left_expr)
        return lifted(lambda element, elements: element in elements, left.run, right.run)
    raise source.error(right_expr, f"`in` wants a list or a text on its right, this is {right.kind}")


def _in_list(source: Source, left: Node, entries: NamedList, expr: ast.expr) -> Evaluate:
    wanted = Kind.IP if entries.kind == "networks" else Kind.TEXT
    if left.kind is not wanted:
        raise source.error(expr, f"@{entries.name} is a list of {entries.kind}, this is {left.kind}")
    name = dotted(expr) or ""
    if _NEVER.get(name.rpartition(".")[2]) == entries.kind:
        raise source.error(expr, f"@{entries.name} is a list of {entries.kind}, which never holds `{name}`")
    members = entries.entries
    return lifted_one(lambda value: value is not None and value in members, left.run)


def _in_literals(source: Source, left: Node, literals: tuple[object, ...], expr: ast.expr) -> Evaluate:
    if left.kind is Kind.IP:
        networks = _build(source, "networks", list(literals), expr)
        return lifted_one(lambda value: value in networks, left.run)
    for each in literals:
        if each is not None and literal(each).kind is not left.kind:
            raise source.error(expr, f"the list holds {literal(each).kind}, the left side is {left.kind}")
        _check_word(source, left.words, each, expr)
    values = frozenset(literals)
    return lifted_one(lambda value: value in values, left.run)


def _build(source: Source, kind: str, values: list[object], expr: ast.expr) -> Entries:
    try:
        return build(kind, [str(value) for value in values])
    except ValueError as error:
        raise source.error(expr, str(error)) from None
