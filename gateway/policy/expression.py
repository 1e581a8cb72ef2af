"""Conditions: a small, total, side-effect-free language with Python's surface, typed against the catalogue.

Parsed with `ast`, only the node types named here get through, checked for types, compiled to closures over a Context.
`none` is an ordinary value: ordering against it is false; empty text, empty list and none are falsy. A closure's result
may be PENDING or UNKNOWN (`policy.values`).
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.content.attachment import Attachment
from gateway.core.verdict import Stage
from gateway.policy.catalogue import CONSTANTS, FACTS, FUNCTIONS, Fact, Function, is_known_at
from gateway.policy.comparison import Node, compare, is_number, literal
from gateway.policy.context import ORDER, Context, Need, key_of
from gateway.policy.lists import NamedList
from gateway.policy.purefunctions import PURE
from gateway.policy.syntax import LIST_MARK, ExpressionError, Source, dotted, suggestion
from gateway.policy.values import (
    PENDING,
    UNKNOWN,
    Evaluate,
    Found,
    Kind,
    Mark,
    both,
    either,
    forget,
    lifted,
    lifted_one,
    negated,
)

T = TypeVar("T")
MAX_DEPTH = 50
MAX_NUMBER = 2**53
_NAMES: dict[str, object] = {"true": True, "false": False, "none": None}
_NOT_SEEN = object()
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """test: true, false or a mark; facts: keys it may read; lists: names it uses; constant: its value if it has no
    fact.
    """

    text: str
    test: Callable[[Context], bool | Mark]
    facts: tuple[str, ...]
    lists: tuple[str, ...]
    constant: bool | None


@dataclass(frozen=True, slots=True)
class Number:
    """An expression whose value is a number, for `score`."""

    text: str
    value: Callable[[Context], Found]
    facts: tuple[str, ...]
    constant: float | None = None


def compile_condition(text: str, stage: Stage, lists: Mapping[str, NamedList]) -> Condition:
    """Raises ExpressionError."""
    compiler = _Compiler(Source(text), stage, lists)
    run = compiler.whole(compiler.truth)
    constant = None if compiler.facts else bool(run(_NOWHERE))
    return Condition(text, run, tuple(compiler.facts), tuple(compiler.lists), constant)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which attachments a condition over `a` is true for; an unknown condition counts as true, for it is about what
    must not arrive.
    """

    chosen: Callable[[Context], tuple[Attachment, ...] | Mark]
    facts: tuple[str, ...]


def compile_choice(text: str, stage: Stage, lists: Mapping[str, NamedList]) -> Choice:
    """A condition over `a`, an attachment. Raises ExpressionError."""
    compiler = _Compiler(Source(text), stage, lists)
    compiler.check_stage(compiler.source.tree, "fact", FACTS["attachments"])
    compiler.variables["a"] = Node(Kind.RECORDS, lambda context: (), fields=FACTS["attachments"].fields)
    test = compiler.whole(compiler.truth)
    read = fact_reader(FACTS["attachments"])

    def chosen(context: Context) -> tuple[Attachment, ...] | Mark:
        found = read(context)
        if found is PENDING or found is UNKNOWN:
            return Mark(found)
        kept: list[Attachment] = []
        for attachment in found if isinstance(found, tuple) else ():
            context.variables["a"] = attachment
            value = test(context)
            if value is PENDING:
                return Mark.PENDING
            if value and isinstance(attachment, Attachment):
                kept.append(attachment)
        return tuple(kept)

    return Choice(chosen, tuple(dict.fromkeys(("attachments", *compiler.facts))))


def compile_number(text: str, stage: Stage, lists: Mapping[str, NamedList]) -> Number:
    """Raises ExpressionError."""
    compiler = _Compiler(Source(text), stage, lists)
    node = compiler.whole(compiler.visit)
    if node.kind is not Kind.NUMBER:
        raise compiler.source.error(compiler.source.tree, f"a number is wanted, this is {node.kind}")
    constant = float(node.constant) if isinstance(node.constant, int | float) else None
    return Number(text, node.run, tuple(compiler.facts), constant)


def key_of_call(text: str) -> tuple[Function, str]:
    """`dnsbl('zen.example')` as the function and the key that its value is known by. Raises ExpressionError."""
    compiler = _Compiler(Source(text), Stage.MESSAGE, {})
    compiler.whole(compiler.visit)
    function = FUNCTIONS.get(text.partition("(")[0].strip())
    if function is None or len(compiler.facts) != 1:
        raise ExpressionError(f"`{text}` is no function with literal texts", 0, len(text))
    return function, next(iter(compiler.facts))


def fact_reader(fact: Fact) -> Callable[[Context], Found]:
    """Each fact at most once a run, but one that rules change; a fetched one from its layer, or noted as pending."""
    if fact.is_live and fact.read is not None:
        return _live_reader(fact.name, fact.read)
    return _reader(fact.read, Need(fact.name, fact.name, (), fact.stage, fact.cost, fact.provider))


def _reader(read: Callable[[Context], Found] | None, need: Need) -> Callable[[Context], Found]:
    key, number = need.key, ORDER[need.stage]

    def run(context: Context) -> Found:
        value = context.seen.get(key, _NOT_SEEN)
        if value is _NOT_SEEN:
            if context.given is not None and key in context.given:
                value = context.given[key]
            else:
                value = PENDING if read is None else read(context)
            if value is PENDING:
                value = context.layers[number].known.get(key, _NOT_SEEN)
                if value is _NOT_SEEN:
                    context.pending.append(need)
                    return PENDING
            context.seen[key] = value  # type: ignore[assignment]
        if value is UNKNOWN:
            context.unknown.append(key)
        return value  # type: ignore[return-value]

    return run


def _live_reader(key: str, read: Callable[[Context], Found]) -> Callable[[Context], Found]:
    """A fact that rules change on the way."""

    def run(context: Context) -> Found:
        value = context.seen[key] = read(context)
        return value

    return run


_NOWHERE = Context.__new__(Context)  # for conditions without facts: reads nothing
_NOWHERE.pending, _NOWHERE.unknown, _NOWHERE.variables = [], [], {}


class _Compiler:
    def __init__(self, source: Source, stage: Stage, lists: Mapping[str, NamedList]) -> None:
        self.source = source
        self.stage = stage
        self.available = lists
        self.facts: dict[str, None] = {}
        self.lists: dict[str, None] = {}
        self.variables: dict[str, Node] = {}  # of any() and all(): what an element is

    def whole(self, compile_part: Callable[[ast.expr, int], T]) -> T:
        try:
            return compile_part(self.source.tree, 0)
        except RecursionError:
            raise ExpressionError("condition is nested too deeply", 0) from None

    def visit(self, node: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.source.error(node, "condition is nested too deeply")
        match node:
            case ast.BoolOp():
                parts = [self.truth(value, depth + 1) for value in node.values]
                return Node(Kind.BOOL, both(parts) if isinstance(node.op, ast.And) else either(parts))
            case ast.UnaryOp(op=ast.Not()):
                return Node(Kind.BOOL, negated(self.truth(node.operand, depth + 1)))
            case ast.UnaryOp(op=ast.USub()):
                return self._negative(node, depth)
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.BinOp():
                return self._arithmetic(node, depth)
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if abs(value) > MAX_NUMBER:
                    raise self.source.error(node, f"a number is at most {MAX_NUMBER}")
                return literal(value)
            case ast.Constant(value=str() as value):
                return literal(value)
            case ast.List():
                return self._list(node, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case _:
                raise self.source.error(node, "this is not part of the language")

    def truth(self, node: ast.expr, depth: int) -> Evaluate:
        """A part in the place of true or false: a text, number or list of a fact may stand for whether it is there."""
        found = self.visit(node, depth)
        is_plain_literal = found.constant is not ... and found.kind is not Kind.BOOL
        is_written_list = found.kind is Kind.LIST and (found.literals is not None or found.entries is not None)
        is_sum = isinstance(node, ast.BinOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub))
        is_never_empty = found.kind is Kind.IP or (found.kind is Kind.TEXT and bool(found.words))
        if is_written_list or is_plain_literal or is_never_empty or is_sum:
            raise self.source.error(node, "this is always true or always false here; compare it with something")
        return found.run if found.kind is Kind.BOOL else lifted_one(bool, found.run)

    def _negative(self, node: ast.UnaryOp, depth: int) -> Node:
        inner = self.visit(node.operand, depth + 1)
        if inner.kind is not Kind.NUMBER:
            raise self.source.error(node.operand, f"minus wants a number, this is {inner.kind}")
        if isinstance(inner.constant, int | float):
            return literal(-inner.constant)
        return Node(Kind.NUMBER, lifted(_calculate(operator.sub), literal(0).run, inner.run))

    def _arithmetic(self, node: ast.BinOp, depth: int) -> Node:
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            raise self.source.error(node, "only + - * are offered")
        left, right = self.visit(node.left, depth + 1), self.visit(node.right, depth + 1)
        for side, expr in ((left, node.left), (right, node.right)):
            if side.kind is not Kind.NUMBER:
                raise self.source.error(expr, f"arithmetic wants numbers, this is {side.kind}")
        if is_number(left.constant) and is_number(right.constant):
            value = operation(left.constant, right.constant)  # type: ignore[arg-type]  # looked at just above
            if abs(value) > MAX_NUMBER:
                raise self.source.error(node, f"a number is at most {MAX_NUMBER}")
            return literal(value)
        return Node(Kind.NUMBER, lifted(_calculate(operation), left.run, right.run))

    def _comparison(self, node: ast.Compare, depth: int) -> Node:
        exprs = [node.left, *node.comparators]
        sides = [self.visit(side, depth + 1) for side in exprs]
        parts = [
            compare(self.source, op, sides[n], sides[n + 1], (exprs[n], exprs[n + 1])) for n, op in enumerate(node.ops)
        ]
        return Node(Kind.BOOL, parts[0] if len(parts) == 1 else both(parts))

    # --- names ----------------------------------------------------------------------------------------------------

    def _name(self, node: ast.Name | ast.Attribute) -> Node:
        name = dotted(node)
        if name is None:
            raise self.source.error(node, "this is not part of the language")
        if name.startswith(LIST_MARK):
            return self._list_name(node, name[len(LIST_MARK) :])
        variable, _, field = name.partition(".")
        if variable in self.variables:
            return self._element(node, variable, field)
        if name in _NAMES:
            return literal(_NAMES[name])
        if name in CONSTANTS:
            return literal(CONSTANTS[name])
        fact = FACTS.get(name)
        if fact is None:
            known = (*FACTS, *CONSTANTS, *_NAMES, *self.variables)
            raise self.source.error(node, f"unknown fact `{name}`{suggestion(name, known)}")
        self.check_stage(node, "fact", fact)
        self.facts[name] = None
        return Node(fact.kind, fact_reader(fact), words=fact.words, fields=fact.fields)

    def _element(self, node: ast.expr, variable: str, field: str) -> Node:
        """A variable of any() or all(): a text, or a field of a record."""
        element = self.variables[variable]
        if not element.fields:
            if field:
                raise self.source.error(node, f"`{variable}` is a text and has no fields")
            return Node(Kind.TEXT, lambda context: context.variables[variable], words=element.words)
        if not field:
            raise self.source.error(node, f"`{variable}` has fields: {', '.join(element.fields)}")
        found = element.fields.get(field)
        if found is None:
            raise self.source.error(node, f"no field `{field}`{suggestion(field, element.fields)}")
        return Node(found.kind, lambda context: getattr(context.variables[variable], field), words=found.words)

    def check_stage(self, node: ast.expr, what: str, fact: Fact | Function) -> None:
        if not is_known_at(fact, self.stage):
            raise self.source.error(node, f"{what} `{fact.name}` is not known at stage {self.stage}")

    def _list_name(self, node: ast.expr, name: str) -> Node:
        found = self.available.get(name) or self.available.get(name.replace("_", "-"))
        if found is None:
            # A dash ends a name here, so a list "a-b" is written @a_b.
            dashed = [
                other.replace("-", "_") for other in self.available if other.replace("-", "_").startswith(name + "_")
            ]
            hint = f". Did you mean `@{dashed[0]}`?" if dashed else suggestion(name, self.available, "@")
            raise self.source.error(node, f"unknown list `@{name}`{hint}")
        self.lists[found.name] = None
        return Node(Kind.LIST, lambda context: found.entries, entries=found)

    def _list(self, node: ast.List, depth: int) -> Node:
        elements = [self.visit(element, depth + 1) for element in node.elts]
        if any(element.constant is ... for element in elements):
            raise self.source.error(node, "a list holds literals only")
        literals = tuple(element.constant for element in elements)
        return Node(Kind.LIST, lambda context: literals, literals=literals)

    # --- calls ----------------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call, depth: int) -> Node:
        name = dotted(node.func)
        if name in ("any", "all"):
            return self._quantified(node, name, depth)
        if name in PURE:
            return self._pure(node, name, depth)
        if name is None:
            raise self.source.error(node.func, "only a function of the catalogue can be called")
        function = FUNCTIONS.get(name)
        if function is None:
            known = (*FUNCTIONS, *PURE, "any", "all")
            raise self.source.error(node.func, f"unknown function `{name}`{suggestion(name, known)}")
        self.check_stage(node.func, "function", function)
        arguments = self._literal_texts(node, function)
        call = function.call
        key = key_of(name, arguments)
        self.facts[key] = None
        read = None if call is None else lambda context: call(context, *arguments)
        # What changes from moment to moment is learnt anew at each stage that asks.
        home = self.stage if function.is_momentary else function.home(arguments)
        need = Need(key, name, arguments, home, function.cost, function.provider)
        return Node(function.kind, _reader(read, need))

    def _literal_texts(self, node: ast.Call, function: Function) -> tuple[str, ...]:
        texts = tuple(
            each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )
        least, most = function.arguments
        if node.keywords or len(texts) != len(node.args) or not least <= len(texts) <= most:
            wanted = "one literal text" if most == 1 else f"{least} to {most} literal texts"
            if least == most > 1:
                wanted = f"{most} literal texts"
            raise self.source.error(node, f"`{function.name}` takes {wanted}")
        try:
            function.check(*texts)
        except ValueError as error:
            raise self.source.error(node, f"`{function.name}`: {error}") from None
        if not is_known_at(function, self.stage) or ORDER[function.home(texts)] > ORDER[self.stage]:
            raise self.source.error(node, f"`{function.name}` of this is not known at stage {self.stage}")
        return texts

    def _pure(self, node: ast.Call, name: str, depth: int) -> Node:
        function = PURE[name]
        if node.keywords or len(node.args) != len(function.parameters):
            raise self.source.error(node, f"`{name}` takes {function.usage}")
        sides = [self.visit(argument, depth + 1) for argument in node.args]
        for side, expr, kinds in zip(sides, node.args, function.parameters, strict=True):
            if side.kind not in kinds:
                raise self.source.error(expr, f"`{name}` takes {function.usage}, this is {side.kind}")
        try:
            return Node(function.kind, function.build(*sides))
        except ValueError as error:
            raise self.source.error(node.args[-1], f"`{name}`: {error}") from None

    def _quantified(self, node: ast.Call, name: str, depth: int) -> Node:
        match node:
            case ast.Call(
                args=[ast.GeneratorExp(elt=test, generators=[ast.comprehension(ast.Name(id=variable), source, [], 0)])],
                keywords=[],
            ):
                pass
            case _:
                raise self.source.error(node, f"write {name}(CONDITION for x in FACT)")
        elements = self.visit(source, depth + 1)
        is_written = elements.entries is not None or elements.literals is not None
        if elements.kind not in (Kind.LIST, Kind.RECORDS) or is_written:
            raise self.source.error(source, f"`{name}` wants a fact that is a list")
        if variable in self.variables or variable in FACTS or variable in CONSTANTS or variable in _NAMES:
            raise self.source.error(node, f"`{variable}` has a meaning already; take another letter")
        self.variables[variable] = elements
        part = self.truth(test, depth + 1)
        del self.variables[variable]
        return Node(Kind.BOOL, _over(name == "any", elements.run, variable, part))


def _over(wanted: bool, elements: Evaluate, variable: str, part: Evaluate) -> Evaluate:
    """Kleene's any (wanted true) or all (wanted false)."""

    def run(context: Context) -> object:
        found = elements(context)
        if found is PENDING or found is UNKNOWN:
            return found
        mark: Mark | None = None
        pending, unknown = len(context.pending), len(context.unknown)
        for element in found:
            context.variables[variable] = element
            value = part(context)
            if value is PENDING or value is UNKNOWN:
                mark = value if mark is None or value is PENDING else mark
            elif bool(value) is wanted:
                forget(context, pending, unknown)
                return wanted
        return mark if mark is not None else not wanted

    return run


def _calculate(operation: Callable[[float, float], float]) -> Callable[[object, object], float | None]:
    def run(one: object, two: object) -> float | None:
        if one is None or two is None:
            return None
        # Bounded at each step, so that no product grows without end and no difference is of two infinities.
        return max(-MAX_NUMBER, min(MAX_NUMBER, operation(one, two)))  # type: ignore[arg-type]  # numbers by their kinds

    return run
