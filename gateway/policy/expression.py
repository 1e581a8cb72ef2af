"""Conditions: a small, total, side-effect-free language with Python's surface, typed against the catalogue.

Parsed with `ast`, only the node types named here get through, checked for types, compiled to closures over a Context.
`none` is an ordinary value: ordering against it is false; empty text, empty list and none are falsy.
"""

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from gateway.core.verdict import Stage
from gateway.policy.catalogue import CONSTANTS, FACTS, FUNCTIONS, Context, Kind, Value, is_known_at
from gateway.policy.lists import Entries, NamedList, build

MAX_LENGTH = 4000  # characters of one condition
MAX_DEPTH = 50
MAX_NUMBER = 2**53
_LIST_MARK = "ǁ"  # stands for "@" while Python parses: a letter of one character, in no fact's name

Evaluate = Callable[[Context], object]


class ExpressionError(ValueError):
    """column, length: where in the text, from 0, in characters."""

    def __init__(self, message: str, column: int, length: int = 1) -> None:
        super().__init__(message)
        self.column = column
        self.length = length


@dataclass(frozen=True, slots=True)
class Condition:
    """test: the compiled condition; facts: names it may read; lists: names it uses; constant: its value if it has no
    fact.
    """

    text: str
    test: Callable[[Context], bool]
    facts: tuple[str, ...]
    lists: tuple[str, ...]
    constant: bool | None


@dataclass(frozen=True, slots=True)
class _Node:
    kind: Kind
    run: Evaluate
    constant: object = ...  # the value of a literal
    literals: tuple[object, ...] | None = None  # the elements of a list of literals
    entries: NamedList | None = None  # a @list


_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def compile_condition(text: str, stage: Stage, lists: Mapping[str, NamedList]) -> Condition:
    """Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"condition of {len(text)} characters, limit {MAX_LENGTH}", 0)
    compiler = _Compiler(text, stage, lists)
    node = compiler.compile()
    run = node.run
    constant = None if compiler.facts else bool(run(_NOWHERE))
    return Condition(text, lambda context: bool(run(context)), tuple(compiler.facts), tuple(compiler.lists), constant)


def read_fact(name: str, context: Context) -> Value:
    """Each fact at most once a scope."""
    memo = context.memo
    if name not in memo:
        memo[name] = FACTS[name].read(context)
    return memo[name]


_NOWHERE = Context.__new__(Context)  # for conditions without facts: reads nothing


class _Compiler:
    def __init__(self, text: str, stage: Stage, lists: Mapping[str, NamedList]) -> None:
        self.text = text
        self.stage = stage
        self.available = lists
        self.facts: dict[str, None] = {}
        self.lists: dict[str, None] = {}

    def compile(self) -> _Node:
        source = self._source()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's advice on `is` and escapes is not for policy writers
                tree = ast.parse(source, mode="eval")
        except SyntaxError as error:
            column = max(0, (error.offset or 1) - 1) + self._indent()
            raise ExpressionError("this is no expression", min(column, max(0, len(self.text) - 1))) from None
        except ValueError:
            raise ExpressionError("condition is not valid text", 0) from None
        except (RecursionError, MemoryError):
            raise ExpressionError("condition is nested too deeply", 0) from None
        try:
            return _Node(Kind.BOOL, self._truth(tree.body, 0))
        except RecursionError:
            raise ExpressionError("condition is nested too deeply", 0) from None

    def _source(self) -> str:
        """One line for Python's parser, character for character the condition from its first word on."""
        for mark, message in ((_LIST_MARK, "unknown letter"), ("#", "a comment stands on a line of its own, outside")):
            place = _outside_quotes(self.text, mark)
            if place >= 0:
                raise ExpressionError(message, place)
        return _mark_lists(self.text).replace("\n", " ")[self._indent() :]

    def _indent(self) -> int:
        return len(self.text) - len(self.text.lstrip())

    def _fail(self, node: ast.expr, message: str) -> ExpressionError:
        start = self._column(node.col_offset)
        end = self._column(node.end_col_offset or node.col_offset + 1)
        return ExpressionError(message, start, max(1, end - start))

    def _column(self, octets: int) -> int:
        """From ast's place, in UTF-8 octets, to an offset in characters."""
        return self._indent() + len(self._source().encode()[:octets].decode(errors="ignore"))

    def _visit(self, node: ast.expr, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._fail(node, "condition is nested too deeply")
        match node:
            case ast.BoolOp():
                return self._logic(node, depth)
            case ast.UnaryOp(op=ast.Not()):
                inner = self._truth(node.operand, depth + 1)
                return _Node(Kind.BOOL, lambda context: not inner(context))
            case ast.UnaryOp(op=ast.USub()):
                return self._negative(node, depth)
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.BinOp():
                return self._arithmetic(node, depth)
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if abs(value) > MAX_NUMBER:
                    raise self._fail(node, f"a number is at most {MAX_NUMBER}")
                return _literal(value)
            case ast.Constant(value=str() as value):
                return _literal(value)
            case ast.List():
                return self._list(node, depth)
            case ast.Call():
                return self._call(node)
            case ast.Name() | ast.Attribute():
                return self._name(node)
            case _:
                raise self._fail(node, "this is not part of the language")

    def _negative(self, node: ast.UnaryOp, depth: int) -> _Node:
        inner = self._visit(node.operand, depth + 1)
        if inner.kind is not Kind.NUMBER:
            raise self._fail(node.operand, f"minus wants a number, this is {inner.kind}")
        if isinstance(inner.constant, int | float):
            return _literal(-inner.constant)
        run = inner.run
        return _Node(Kind.NUMBER, lambda context: -value if isinstance(value := run(context), int | float) else None)

    def _truth(self, node: ast.expr, depth: int) -> Evaluate:
        """A part in the place of true or false: a text or number may stand for whether it is there, a list not."""
        found = self._visit(node, depth)
        is_plain_literal = found.constant is not ... and found.kind is not Kind.BOOL
        is_sum = isinstance(node, ast.BinOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub))
        if found.kind is Kind.LIST or is_plain_literal or found.kind is Kind.IP or is_sum:
            raise self._fail(node, "this is always true or always false here; compare it with something")
        return found.run

    def _logic(self, node: ast.BoolOp, depth: int) -> _Node:
        parts = [self._truth(value, depth + 1) for value in node.values]
        if isinstance(node.op, ast.And):
            return _Node(Kind.BOOL, lambda context: all(part(context) for part in parts))
        return _Node(Kind.BOOL, lambda context: any(part(context) for part in parts))

    def _name(self, node: ast.Name | ast.Attribute) -> _Node:
        name = _dotted(node)
        if name is None:
            raise self._fail(node, "this is not part of the language")
        if name.startswith(_LIST_MARK):
            return self._list_name(node, name[len(_LIST_MARK) :])
        if name in ("true", "false", "none"):
            return _literal({"true": True, "false": False, "none": None}[name])
        if name in CONSTANTS:
            return _literal(CONSTANTS[name])
        fact = FACTS.get(name)
        if fact is None:
            raise self._fail(
                node, f"unknown fact `{name}`{suggestion(name, (*FACTS, *CONSTANTS, 'true', 'false', 'none'))}"
            )
        if not is_known_at(fact, self.stage):
            raise self._fail(node, f"fact `{name}` is not known at stage {self.stage}")
        self.facts[name] = None
        return _Node(fact.kind, lambda context: read_fact(name, context))

    def _list_name(self, node: ast.expr, name: str) -> _Node:
        found = self.available.get(name) or self.available.get(name.replace("_", "-"))
        if found is None:
            # A dash ends a name here, so a list "a-b" is written @a_b.
            dashed = [
                other.replace("-", "_") for other in self.available if other.replace("-", "_").startswith(name + "_")
            ]
            hint = f". Did you mean `@{dashed[0]}`?" if dashed else suggestion(name, self.available, "@")
            raise self._fail(node, f"unknown list `@{name}`{hint}")
        self.lists[found.name] = None
        return _Node(Kind.LIST, lambda context: found.entries, entries=found)

    def _list(self, node: ast.List, depth: int) -> _Node:
        elements = [self._visit(element, depth + 1) for element in node.elts]
        if any(element.constant is ... for element in elements):
            raise self._fail(node, "a list holds literals only")
        literals = tuple(element.constant for element in elements)
        return _Node(Kind.LIST, lambda context: literals, literals=literals)

    def _call(self, node: ast.Call) -> _Node:
        name = _dotted(node.func)
        if name is None:
            raise self._fail(node.func, "only a function of the catalogue can be called")
        function = FUNCTIONS.get(name)
        if function is None:
            raise self._fail(node.func, f"unknown function `{name}`{suggestion(name, FUNCTIONS)}")
        if not is_known_at(function, self.stage):
            raise self._fail(node.func, f"function `{name}` is not known at stage {self.stage}")
        match node:
            case ast.Call(args=[ast.Constant(value=str() as argument)], keywords=[]):
                pass
            case _:
                raise self._fail(node, f"`{name}` takes one literal text")
        key = f'{name}("{argument}")'
        self.facts[key] = None

        def run(context: Context) -> object:
            if key not in context.memo:
                context.memo[key] = function.call(context, argument)
            return context.memo[key]

        return _Node(function.kind, run)

    def _arithmetic(self, node: ast.BinOp, depth: int) -> _Node:
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            raise self._fail(node, "only + - * are offered")
        left, right = self._visit(node.left, depth + 1), self._visit(node.right, depth + 1)
        for side, expr in ((left, node.left), (right, node.right)):
            if side.kind is not Kind.NUMBER:
                raise self._fail(expr, f"arithmetic wants numbers, this is {side.kind}")
        run_left, run_right = left.run, right.run

        def run(context: Context) -> object:
            one, two = run_left(context), run_right(context)
            return operation(one, two) if isinstance(one, int | float) and isinstance(two, int | float) else None

        constant = operation(left.constant, right.constant) if _numbers(left.constant, right.constant) else ...  # type: ignore[arg-type]  # _numbers looked
        return _Node(Kind.NUMBER, run, constant=constant)

    def _comparison(self, node: ast.Compare, depth: int) -> _Node:
        sides = [self._visit(side, depth + 1) for side in (node.left, *node.comparators)]
        exprs = [node.left, *node.comparators]
        parts = [self._compare(op, sides[n], sides[n + 1], exprs[n], exprs[n + 1]) for n, op in enumerate(node.ops)]
        if len(parts) == 1:
            return _Node(Kind.BOOL, parts[0])
        return _Node(Kind.BOOL, lambda context: all(part(context) for part in parts))

    def _compare(self, op: ast.cmpop, left: _Node, right: _Node, left_expr: ast.expr, right_expr: ast.expr) -> Evaluate:
        match op:
            case ast.In() | ast.NotIn() if left.kind is Kind.IP and right.kind is Kind.TEXT:
                raise self._fail(right_expr, "compare an address by ==, or by `in` with a list of networks")
            case ast.In() | ast.NotIn():
                test = self._membership(left, right, left_expr, right_expr)
                return test if isinstance(op, ast.In) else lambda context: not test(context)
            case ast.Eq() | ast.NotEq():
                self._check_alike(left, right, right_expr)
                if {left.kind, right.kind} == {Kind.IP, Kind.TEXT}:
                    return self._same_address(op, left, right, right_expr)
                one, two = left.run, right.run
                if isinstance(op, ast.Eq):
                    return lambda context: one(context) == two(context)
                return lambda context: one(context) != two(context)
            case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
                return self._ordering(_ORDER[type(op)], left, right, left_expr, right_expr)
            case _:
                raise self._fail(left_expr, "use == or in instead of is")

    def _ordering(
        self,
        order: Callable[[float, float], bool],
        left: _Node,
        right: _Node,
        left_expr: ast.expr,
        right_expr: ast.expr,
    ) -> Evaluate:
        for side, expr in ((left, left_expr), (right, right_expr)):
            if side.kind not in (Kind.NUMBER, Kind.NONE):
                raise self._fail(expr, f"ordering wants numbers, this is {side.kind}")
        one, two = left.run, right.run

        def run(context: Context) -> object:
            first, second = one(context), two(context)
            return isinstance(first, int | float) and isinstance(second, int | float) and order(first, second)

        return run

    def _check_alike(self, left: _Node, right: _Node, expr: ast.expr) -> None:
        kinds = {left.kind, right.kind}
        if Kind.LIST in kinds:
            raise self._fail(expr, "compare with a list by `in`")
        if Kind.NONE in kinds or len(kinds) == 1:
            return
        if kinds == {Kind.IP, Kind.TEXT}:
            return
        raise self._fail(expr, f"cannot compare {left.kind} with {right.kind}")

    def _same_address(self, op: ast.cmpop, left: _Node, right: _Node, expr: ast.expr) -> Evaluate:
        """An address against a literal address or network."""
        fact, literal = (left, right) if left.kind is Kind.IP else (right, left)
        if literal.constant is ...:
            raise self._fail(expr, "compare an address with a literal, or by `in` with a list of networks")
        networks, run = self._build("networks", [literal.constant], expr), fact.run
        if "/" in str(literal.constant):
            raise self._fail(expr, f"{literal.constant} is a network: write `in [...]`")
        if isinstance(op, ast.Eq):
            return lambda context: run(context) in networks
        return lambda context: run(context) not in networks

    def _membership(self, left: _Node, right: _Node, left_expr: ast.expr, right_expr: ast.expr) -> Evaluate:
        run = left.run
        if right.entries is not None:
            entries = right.entries
            wanted = Kind.IP if entries.kind == "networks" else Kind.TEXT
            if left.kind is not wanted:
                raise self._fail(left_expr, f"@{entries.name} is a list of {entries.kind}, this is {left.kind}")
            self._check_list_kind(left_expr, entries)
            members = entries.entries
            return lambda context: (value := run(context)) is not None and value in members
        if right.literals is not None:
            if left.kind is Kind.IP:
                networks = self._build("networks", list(right.literals), right_expr)
                return lambda context: run(context) in networks
            for literal in right.literals:
                if literal is not None and _literal(literal).kind is not left.kind:
                    raise self._fail(
                        right_expr, f"the list holds {_literal(literal).kind}, the left side is {left.kind}"
                    )
            values = frozenset(right.literals)
            return lambda context: run(context) in values
        if left.kind is Kind.TEXT and right.kind is Kind.TEXT:
            whole = right.run

            def contains(context: Context) -> object:
                part, text = run(context), whole(context)
                return isinstance(part, str) and isinstance(text, str) and part in text

            return contains
        raise self._fail(right_expr, f"`in` wants a list or a text on its right, this is {right.kind}")

    def _check_list_kind(self, expr: ast.expr, entries: NamedList) -> None:
        """An address is never in a list of domains, nor a domain in one of addresses."""
        name = _dotted(expr) or ""
        wrong = {"address": "domains", "from_address": "domains", "domain": "addresses", "from_domain": "addresses"}
        if wrong.get(name.rpartition(".")[2]) == entries.kind:
            raise self._fail(expr, f"@{entries.name} is a list of {entries.kind}, which never holds `{name}`")

    def _build(self, kind: str, values: list[object], expr: ast.expr) -> Entries:
        try:
            return build(kind, [str(value) for value in values])
        except ValueError as error:
            raise self._fail(expr, str(error)) from None


def suggestion(name: str, known: Mapping[str, object] | tuple[str, ...], prefix: str = "") -> str:
    """`. Did you mean `client.ptr`?` where something is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f". Did you mean `{prefix}{near[0]}`?" if near else ""


def _literal(value: object) -> _Node:
    match value:
        case None:
            kind = Kind.NONE
        case bool():
            kind = Kind.BOOL
        case int() | float():
            kind = Kind.NUMBER
        case _:
            kind = Kind.TEXT
    return _Node(kind, lambda context: value, constant=value)


def _numbers(*values: object) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _dotted(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            before = _dotted(value)
            return None if before is None else f"{before}.{attribute}"
        case _:
            return None


def _mark_lists(text: str) -> str:
    """`@name` outside quotes becomes one identifier of the same length."""
    out = list(text)
    for place, char in _unquoted(text):
        if char == "@":
            out[place] = _LIST_MARK
    return "".join(out)


def _outside_quotes(text: str, wanted: str) -> int:
    return next((place for place, char in _unquoted(text) if char == wanted), -1)


def _unquoted(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside quotes with their places."""
    quote, is_escaped = "", False
    for place, char in enumerate(text):
        if is_escaped or (quote and char == "\\"):
            is_escaped = not is_escaped
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            yield place, char
