"""Laws of the engine: Kleene's logic, laziness that never alters a verdict, and a language that nothing gets out of."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.verdict import Action, Decision, Stage
from gateway.policy.catalogue import FACTS, Fact
from gateway.policy.context import STAGES, Context, Need
from gateway.policy.engine import decide
from gateway.policy.expression import Condition, compile_condition
from gateway.policy.lists import NamedList, build
from gateway.policy.rules import OnUnknown, Policy, Rule
from gateway.policy.syntax import ExpressionError
from gateway.policy.values import UNKNOWN, Found, Kind
from tests.support.policies import STRANGER, context

FETCHED = ("t.a", "t.b", "t.c", "t.d")
FREE = ("t.yes", "t.no")
ELEMENTS = ("t.list",)
VALUES = (True, False, UNKNOWN)
LISTS = {
    name: NamedList(name, kind, build(kind, entries), Path(f"{name}.{kind}"))
    for name, kind, entries in (
        ("doms", "domains", [".sender.example"]),
        ("adrs", "addresses", ["bob@sender.example"]),
        ("wrds", "words", ["Free Offer"]),
    )
}
WAY = {"prober": OnUnknown.DEFER}

Logic = bool | None  # None: unknown


@dataclass(frozen=True)
class Part:
    """A piece of a condition: op is a fact, a literal, or an operator over parts."""

    op: str
    parts: tuple["Part", ...] = ()

    def __str__(self) -> str:
        match self.op:
            case "not":
                return f"(not {self.parts[0]})"
            case "any" | "all":
                return f"{self.op}({self.parts[0]} for m in t.list)"
            case "and" | "or" | "==" | "!=":
                return "(" + f" {self.op} ".join(map(str, self.parts)) + ")"
            case _:
                return self.op


def reference(part: Part, facts: dict[str, Found], element: str = "") -> Logic:
    """Straight from Kleene's tables, all facts at hand; a fact that is missing is unknown."""
    match part.op:
        case "true" | "false":
            return part.op == "true"
        case "(m == 'x')":
            return element == "x"
        case "not":
            inner = reference(part.parts[0], facts, element)
            return None if inner is None else not inner
        case "and" | "or":
            return joined(part.op == "or", [reference(each, facts, element) for each in part.parts])
        case "==" | "!=":
            one, two = (reference(each, facts, element) for each in part.parts)
            return None if one is None or two is None else (one == two) is (part.op == "==")
        case "any" | "all":
            elements = facts.get("t.list", UNKNOWN)
            if not isinstance(elements, tuple):
                return None
            return joined(part.op == "any", [reference(part.parts[0], facts, each) for each in elements])
        case _:
            value = facts.get(part.op, UNKNOWN)
            return value if isinstance(value, bool) else None


def joined(wanted: bool, values: Sequence[Logic]) -> Logic:
    """`or` where wanted is true, `and` where it is false."""
    if wanted in values:
        return wanted
    return None if None in values else not wanted


def combined(inner: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
    several = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return (
        st.builds(Part, st.just("not"), st.tuples(inner))
        | st.builds(Part, st.sampled_from(["and", "or"]), several)
        | st.builds(Part, st.sampled_from(["==", "!="]), st.tuples(inner, inner))
    )


def parts(*leaves: str) -> st.SearchStrategy[Part]:
    return st.recursive(st.sampled_from(leaves).map(Part), combined, max_leaves=8)


QUANTIFIED = st.builds(Part, st.sampled_from(["any", "all"]), st.tuples(parts(*FETCHED, "(m == 'x')")))
CONDITIONS = parts(*FETCHED, *FREE, "true", "false") | st.recursive(
    QUANTIFIED | st.sampled_from(FETCHED).map(Part), combined, max_leaves=4
)
WORLDS = st.fixed_dictionaries(
    {name: st.sampled_from(VALUES) for name in FETCHED}
    | {"t.list": st.just(UNKNOWN) | st.lists(st.sampled_from(["x", "y"]), max_size=3).map(tuple)}
).map(lambda world: {**world, "t.yes": True, "t.no": False})
COSTS = st.fixed_dictionaries({name: st.integers(0, 3) for name in (*FETCHED, *ELEMENTS)})


@pytest.fixture(autouse=True, scope="module")
def test_facts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in FETCHED:
            patch.setitem(FACTS, name, Fact(name, Kind.BOOL, Stage.CONNECT, None, "", provider="prober"))
        patch.setitem(FACTS, "t.list", Fact("t.list", Kind.LIST, Stage.CONNECT, None, "", provider="prober"))
        patch.setitem(FACTS, "t.text", Fact("t.text", Kind.TEXT, Stage.CONNECT, None, "", provider="prober"))
        patch.setitem(FACTS, "t.yes", Fact("t.yes", Kind.BOOL, Stage.CONNECT, lambda c: True, ""))
        patch.setitem(FACTS, "t.no", Fact("t.no", Kind.BOOL, Stage.CONNECT, lambda c: False, ""))
        yield


@dataclass(frozen=True)
class Line:
    """A rule before it is compiled."""

    action: Action
    condition: Part
    on_unknown: OnUnknown | None
    is_monitor: bool


LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from([*Action, Action.NOTE]),
        CONDITIONS,
        st.sampled_from([None, *OnUnknown]),
        st.sampled_from([False, False, True]),
    ),
    min_size=1,
    max_size=4,
)


def compiled(text: object, costs: dict[str, int] | None = None) -> Condition:
    with pytest.MonkeyPatch.context() as patch:
        for name, cost in (costs or {}).items():
            patch.setitem(FACTS, name, replace(FACTS[name], cost=cost))
        return compile_condition(str(text), Stage.CONNECT, {})


def policy(lines: Sequence[Line], costs: dict[str, int] | None = None) -> Policy:
    """Rules are named by their number; each gives one point and a mark."""
    rules = tuple(
        Rule(
            f"r{number}",
            line.action,
            compiled(line.condition, costs),
            None,
            "",
            marks=(f"m{number}",),
            is_monitor=line.is_monitor,
            on_unknown=line.on_unknown,
        )
        for number, line in enumerate(lines)
    )
    return Policy({stage: rules if stage is Stage.CONNECT else () for stage in STAGES}, {}, (), on_error=WAY)


@dataclass
class World:
    """Gives facts and counts how often each was asked for."""

    facts: dict[str, Found]
    asked: list[str] = field(default_factory=list)

    def fetch(self, need: Need) -> Found:
        self.asked.append(need.key)
        return self.facts[need.key]


def told(decision: Decision) -> tuple[object, ...]:
    verdict = decision.verdict
    code = None if verdict.reply is None else verdict.reply.code
    return verdict.action, verdict.rule, code, decision.marks, decision.trail


def with_all_at_hand(facts: dict[str, Found]) -> Context:
    where = context()
    where.layers[0].known.update({name: facts[name] for name in (*FETCHED, *ELEMENTS)})
    return where


def expected(lines: Sequence[Line], facts: dict[str, Found]) -> tuple[Action, str]:
    """POLICY.md read literally: the first rule that matches decides, a postponed deferral loses to refusals only."""
    postponed = ""
    for number, line in enumerate(lines):
        found = reference(line.condition, facts)
        way = line.on_unknown or OnUnknown.DEFER
        if found is None and way is OnUnknown.DEFER and not line.is_monitor:
            postponed = postponed or f"r{number}"
        matches = found or (found is None and way is OnUnknown.MATCH)
        if not matches or line.is_monitor or line.action is Action.NOTE:
            continue
        if postponed and line.action not in (Action.REJECT, Action.DEFER):
            break
        return line.action, f"r{number}"
    return (Action.DEFER, postponed) if postponed else (Action.ACCEPT, "")


# --- logic and laziness -----------------------------------------------------------------------------------------------


@given(CONDITIONS, WORLDS)
def test_a_condition_has_the_value_of_kleene_s_tables(condition: Part, facts: dict[str, Found]) -> None:
    where = with_all_at_hand(facts)
    value = compiled(condition).test(where)
    assert (None if value is UNKNOWN else value) is reference(condition, facts)
    assert where.pending == []


@pytest.mark.parametrize("quantifier", ["any", "all"])
@given(part=parts(*FETCHED, "(m == 'x')"), facts=WORLDS)
def test_any_and_all_are_or_and_and_over_the_elements(quantifier: str, part: Part, facts: dict[str, Found]) -> None:
    where = with_all_at_hand(facts)
    value = compiled(Part(quantifier, (part,))).test(where)
    assert (None if value is UNKNOWN else value) is reference(Part(quantifier, (part,)), facts)


@pytest.mark.parametrize(
    ("elements", "a", "any_of_them", "all_of_them"),
    [
        ((), UNKNOWN, False, True),
        (("x",), UNKNOWN, True, True),
        (("y",), UNKNOWN, UNKNOWN, UNKNOWN),
        (("y", "x"), UNKNOWN, True, UNKNOWN),
        (("y",), False, False, False),
        (("x", "y"), False, True, False),
        (("y",), True, True, True),
        (UNKNOWN, True, UNKNOWN, UNKNOWN),
    ],
)
def test_any_and_all_over_what_is_not_known(elements: Found, a: Found, any_of_them: Found, all_of_them: Found) -> None:
    for quantifier, value in (("any", any_of_them), ("all", all_of_them)):
        where = context()
        where.layers[0].known.update({"t.list": elements, "t.a": a})
        assert compiled(f"{quantifier}(m == 'x' or t.a for m in t.list)").test(where) is value


@given(LINES, WORLDS)
def test_the_policy_decides_as_its_page_says(lines: list[Line], facts: dict[str, Found]) -> None:
    verdict = decide(policy(lines), Stage.CONNECT, with_all_at_hand(facts)).verdict
    assert (verdict.action, verdict.rule) == expected(lines, facts)


@given(LINES, WORLDS, COSTS)
def test_facts_fetched_late_give_the_verdict_of_facts_at_hand(
    lines: list[Line], facts: dict[str, Found], costs: dict[str, int]
) -> None:
    eager = decide(policy(lines), Stage.CONNECT, with_all_at_hand(facts))
    lazy = decide(policy(lines, costs), Stage.CONNECT, context(), World(facts).fetch)
    assert told(lazy) == told(eager)


@given(LINES, WORLDS, COSTS, COSTS)
def test_what_facts_cost_never_alters_the_verdict(
    lines: list[Line], facts: dict[str, Found], some: dict[str, int], other: dict[str, int]
) -> None:
    one, two = (decide(policy(lines, costs), Stage.CONNECT, context(), World(facts).fetch) for costs in (some, other))
    assert told(one) == told(two)


@given(LINES, WORLDS, COSTS)
def test_no_fact_is_fetched_twice_and_none_is_pending_after_the_decision(
    lines: list[Line], facts: dict[str, Found], costs: dict[str, int]
) -> None:
    world, where = World(facts), context()
    decide(policy(lines, costs), Stage.CONNECT, where, world.fetch)
    assert len(world.asked) == len(set(world.asked))
    assert where.layers[0].known == {key: facts[key] for key in world.asked}
    assert where.pending == []
    world.asked.clear()
    again = context()
    again.layers = tuple(replace(layer, marks=()) for layer in where.layers)
    decide(policy(lines, costs), Stage.CONNECT, again, world.fetch)
    assert world.asked == []


@given(CONDITIONS, WORLDS, COSTS)
def test_a_fact_is_fetched_only_while_the_answer_is_open(
    condition: Part, facts: dict[str, Found], costs: dict[str, int]
) -> None:
    known: dict[str, Found] = {name: facts[name] for name in FREE}

    def fetch(need: Need) -> Found:
        assert reference(condition, known) is None
        known[need.key] = facts[need.key]
        return facts[need.key]

    decide(policy([Line(Action.REJECT, condition, None, False)], costs), Stage.CONNECT, context(), fetch)
    assert reference(condition, known) is reference(condition, facts)


@given(CONDITIONS, WORLDS)
def test_a_condition_that_reads_no_fact_is_a_constant(condition: Part, facts: dict[str, Found]) -> None:
    found = compiled(condition)
    assert (found.constant is None) is bool(found.facts)
    if found.constant is not None:
        assert found.constant is reference(condition, facts)


# --- the language -----------------------------------------------------------------------------------------------------

ALLOWED = {ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Compare, ast.Constant, ast.List, ast.Call, ast.Name, ast.Attribute}
REFUSED = {
    ast.NamedExpr: ["(x := true)", "(t := t.a)"],
    ast.Lambda: ["(lambda: true)", "(lambda m: m)"],
    ast.IfExp: ["(true if t.a else false)"],
    ast.Dict: ["{}", "{'x': 1}", "{**t.a}"],
    ast.Set: ["{1}", "{'x', 'y'}"],
    ast.ListComp: ["[m for m in t.list]"],
    ast.SetComp: ["{m for m in t.list}"],
    ast.DictComp: ["{m: m for m in t.list}"],
    ast.GeneratorExp: ["(m for m in t.list)"],
    ast.Await: ["(await t.a)"],
    ast.Yield: ["(yield)", "(yield t.a)"],
    ast.YieldFrom: ["(yield from t.list)"],
    ast.FormattedValue: ["f'{t.text}'", "f'{t.text!r:>10}'"],
    ast.JoinedStr: ["f''", "f'x'"],
    ast.Subscript: ["t.list[0]", "'x'[0]", "t.text['x']"],
    ast.Slice: ["t.list[:]", "t.text[0:1:2]"],
    ast.Starred: ["[*t.list]", "matches(*t.list)", "header(*t.list)"],
    ast.Tuple: ["()", "(1,)", "('x', 'y')"],
}
# Node types that are allowed, in forms that are not.
REFUSED_FORMS = [
    "b'x'", "1j", "...", "True", "None", "False", "1 / 2", "1 // 2", "1 % 2", "2 ** 2", "1 << 2", "1 >> 2", "1 | 2",
    "1 & 2", "1 ^ 2", "[1] @ [2]", "~1", "+1", "t.a is true", "t.a is not true", "t.a.real", "t.text.upper()",
    "''.join(t.list)", "t.a.__class__", "__builtins__", "print", "print('x')", "getattr(t.a, 'x')", "t", "t()", "t.a()",
    "any(t.a)", "any()", "any([])", "any(m for m in [])", "any(t.a for m in t.list if t.a)",
    "any(t.a for m.x in marks)", "any(t.a for m in t.list for n in t.list)", "any((t.a for m in t.list), key='x')",
    "any(m for m in t.text)",
    "any(t.a for t.b in t.list)", "any(true for true in t.list)", "any(any(t.a for m in t.list) for m in t.list)",
    "any(m.x for m in t.list)", "any(t.a async for m in t.list)", "any(t.a for (m, n) in t.list)", "sum(t.list)",
    "matches(t.text)", "matches(t.text, t.text)", "matches(t.text, pattern='x')", "matches(t.text, 1)", "count(t.text)",
    "count(m for m in t.list)", "starts_with('x', t.text)", "ends_with(t.text, *['x'])", "lower(t.a)", "lower(**{})",
    "10 ** 10 > 1", "9007199254740993 > 1", "1e309 > 1", "-9007199254740993 < 1",
]  # fmt: skip
PLACES = [
    "{}", "not {}", "{} and t.a", "t.a or {}", "{} == t.a", "t.a != {}", "1 < {}", "{} in t.text", "'x' in {}", "[{}]",
    "'x' in [{}]", "matches({}, 'x')", "matches(t.text, {})", "lower({}) == 'x'", "header({}) == 'x'", "count({}) > 1",
    "1 + {} > 2", "-{} < 1", "any({} for m in t.list)", "any(m == 'x' for m in {})", "all({} == m for m in t.list)",
]  # fmt: skip


def is_language(text: str) -> bool:
    try:
        compile_condition(text, Stage.MESSAGE, {})
    except ExpressionError:
        return False
    return True


def test_every_kind_of_expression_is_either_allowed_or_refused_here() -> None:
    assert set(REFUSED) | ALLOWED >= set(ast.expr.__subclasses__())
    assert not ALLOWED & set(REFUSED)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_an_expression_outside_the_language_is_refused_in_every_place(kind: type[ast.expr], place: str) -> None:
    for form in REFUSED[kind]:
        text = place.format(form)
        assert any(isinstance(node, kind) for node in ast.walk(ast.parse(text, mode="eval")))
        assert not is_language(text)


@pytest.mark.parametrize("text", REFUSED_FORMS)
def test_a_form_outside_the_language_is_refused(text: str) -> None:
    ast.parse(text, mode="eval")
    for place in ("{}", "not ({})", "t.a and ({})", "({}) == t.a", "matches(({}), 'x')", "any(({}) for k in t.list)"):
        assert not is_language(place.format(text))


FORMS = [form for forms in REFUSED.values() for form in forms] + REFUSED_FORMS
LEAVES = ["t.a", "t.text", "t.list", "m", "true", "none", "1", "'x'", "['x']", "client.port", "client.ip"]
WRAPPERS = [
    "({})", "not {}", "-{}", "any({} for m in t.list)", "all({} for k in t.list)", "matches({}, 'x')", "lower({})",
    "count({})", "header({})", "[{}]", "{}.real", "{}[0]", "f'{{{}}}'", "(lambda: {})", "{{{}}}", "*{}", "(yield {})",
]  # fmt: skip
JOINTS = ["and", "or", "==", "<", "in", "not in", "is", "+", "*", "-", "/", "**", "|", "if t.a else", ",", ":="]
TEXTS = st.recursive(
    st.sampled_from(LEAVES) | st.sampled_from(FORMS),
    lambda inner: (
        st.builds(str.format, st.sampled_from(WRAPPERS), inner)
        | st.builds("{1} {0} {2}".format, st.sampled_from(JOINTS), inner, inner)
    ),
    max_leaves=6,
)


@given(TEXTS)
def test_what_is_accepted_is_made_of_allowed_nodes_only(text: str) -> None:
    if not is_language(text):
        return
    allowed = ALLOWED | {ast.GeneratorExp} if "any(" in text or "all(" in text else ALLOWED
    nodes = list(ast.walk(ast.parse(text, mode="eval").body))
    assert {type(node) for node in nodes if isinstance(node, ast.expr)} <= allowed
    constants = {type(node.value) for node in nodes if isinstance(node, ast.Constant)}
    assert constants <= {int, float, str}
    assert all(isinstance(node.op, ast.Add | ast.Sub | ast.Mult) for node in nodes if isinstance(node, ast.BinOp))
    assert not any(
        isinstance(op, ast.Is | ast.IsNot) for node in nodes if isinstance(node, ast.Compare) for op in node.ops
    )


# --- hostile values ---------------------------------------------------------------------------------------------------

MB = 1 << 20
HOSTILE = {
    "1 MB of one letter": "a" * MB,
    "1 MB of dots": "." * MB,
    "1 MB of labels": "a." * (MB // 2),
    "1 MB of blanks": " " * MB,
    "1 MB of at signs": "@" * MB,
    "NUL": "a\0b",
    "line ends": "a\r\nb",
    "a lone surrogate": "a\ud800b",
    "1 MB of surrogates": "\udcff" * MB,
    "letters past the plane": "\U0010ffff",
    "letters that grow": "İ" * 1000,
    "nothing": "",
}
TEXT_CONDITIONS = [
    "matches(t.text, '(a+)+$')", "matches(t.text, '(?i)b$')", "not matches(t.text, '^$')", "t.text == 'a'",
    "t.text in ['a', 'b']", "'b' in t.text", "'\\0' in t.text", "starts_with(t.text, 'aa')", "ends_with(t.text, 'ab')",
    "lower(t.text) == 'a'", "matches(lower(t.text), 'x')", "t.text", "t.text in @adrs", "t.text in @wrds",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("text", TEXT_CONDITIONS)
def test_a_condition_takes_any_text(name: str, text: str) -> None:
    where = context()
    where.layers[0].known["t.text"] = HOSTILE[name]
    assert isinstance(compile_condition(text, Stage.CONNECT, LISTS).test(where), bool)


@pytest.mark.parametrize(
    ("value", "pattern", "matches"),
    [
        ("a\ud800b", "^a.b$", True),
        ("a\ud800b", "^ab$", False),
        ("a\ud800", "x", False),
        ("a\0b", "a\\\\x00b", True),
        ("a\0b", "^a$", False),
        ("é", "^.$", True),
        ("\U0010ffff", "^.$", True),
        ("a\nb", "^b", False),
        ("a\nb", "(?m)^b", True),
        ("GRÜSSE", "(?i)grüsse", True),
    ],
)
def test_a_pattern_looks_at_letters_whatever_they_are(value: str, pattern: str, matches: bool) -> None:
    where = context()
    where.layers[0].known["t.text"] = value
    assert compiled(f"matches(t.text, '{pattern}')").test(where) is matches


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 5000 + "!"),
        ("^(a|aa)+$", "a" * 5000 + "!"),
        ("^(a|a)*$", "a" * 5000 + "!"),
        ("^(.*)*$x", "a" * 5000),
        ("(x+x+)+y", "x" * 5000),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 5000),
        ("a?" * 100 + "a" * 101 + "$", "a" * 100),
        ("^((a*)*)*$", "a" * 5000 + "b"),
        ("(.*)(.*)(.*)(.*)(.*)=", "x" * 5000),
    ],
)
def test_a_pattern_that_blows_up_other_engines_is_answered(pattern: str, text: str) -> None:
    where = context()
    where.layers[0].known["t.text"] = text
    assert compiled(f"matches(t.text, '{pattern}')").test(where) is False


@pytest.mark.parametrize(
    "pattern",
    ["(", "a{1001}", "((a{500}){500}){500}", "(?=a)", "(a)\\\\1", "a**", "[z-a]", "x" * 1001],
)
def test_a_pattern_that_is_none_or_too_big_is_an_error_at_load(pattern: str) -> None:
    assert not is_language(f"matches(t.text, '{pattern}')")


MESSAGES = {
    "a subject of 1 MB": b"Subject: " + b"a" * MB + b"\r\n\r\n",
    "a subject of 1 MB in many lines": b"Subject: a" + b"\r\n b" * (MB // 4) + b"\r\n\r\n",
    "100,000 fields": b"X: y\r\n" * 100_000 + b"\r\n",
    "NUL": b"Subject: a\0b\r\nFrom: a\0@b.example\r\n\r\n",
    "no UTF-8": b"Subject: \xff\xfe\x80\r\nFrom: \xff@\xfe\r\n\r\n",
    "UTF-8 cut in mid-letter": b"Subject: gr\xc3\r\n\r\n",
    "surrogates in UTF-8": b"Subject: \xed\xa0\x80\r\n\r\n",
    "broken encoded words": b"Subject: =?utf-8?q?=ZZ=FF?= =?x?b?!!!?= =?utf-7?q?+2AA-?=\r\n\r\n",
    "100,000 at signs": b"From: " + b"@" * 100_000 + b"\r\n\r\n",
    "100,000 comments": b"From: " + b"(" * 100_000 + b"a@b.example\r\n\r\n",
    "dots": b"From: a@" + b"." * 100_000 + b"\r\n\r\n",
    "no header": b"\0" * 1000,
    "nothing": b"",
}
MESSAGE_CONDITIONS = [
    "matches(message.subject, '(a+)+$')", "matches(header('From'), '\\\\x00')", "message.subject == 'x'",
    "message.from_domain in @doms", "message.from_address in @adrs", "message.subject in @wrds", "message.is_bulk",
    "lower(header('X')) == 'y'", "'x' in message.subject", "message.header_count > 5 and message.hops > 5",
    "ends_with(message.from_address, '.example')", "message.is_auto_submitted",
]  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_conditions_take_any_message(name: str) -> None:
    where = context(sender="", message=MESSAGES[name])
    for text in MESSAGE_CONDITIONS:
        assert isinstance(compile_condition(text, Stage.MESSAGE, LISTS).test(where), bool)


@pytest.mark.parametrize("name", [name for name in HOSTILE if "MB" not in name] + ["1 MB of dots"])
def test_conditions_take_any_helo(name: str) -> None:
    where = context(replace(STRANGER, helo=HOSTILE[name]))
    for text in ("helo.name == 'x'", "matches(helo.name, 'x')", "helo.is_valid", "helo.claims_us", "helo.is_literal"):
        assert isinstance(compile_condition(text, Stage.HELO, LISTS).test(where), bool)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count(marks) == 10000", True),
        ("'m9999' in marks", True),
        ("'m10000' in marks", False),
        ("any(m == 'm9999' for m in marks)", True),
        ("all(starts_with(m, 'm') for m in marks)", True),
        ("any(m in @wrds for m in marks)", False),
        ("any(matches(m, '^m77$') for m in marks)", True),
        ("all(any(n == m for n in t.list) for m in marks)", False),
    ],
)
def test_conditions_take_ten_thousand_marks(text: str, value: bool) -> None:
    where = context()
    where.layers[0].marks = tuple(f"m{number}" for number in range(10_000))
    where.layers[0].known["t.list"] = ("m0", "m1")
    assert compile_condition(text, Stage.CONNECT, LISTS).test(where) is value


def test_a_stage_of_ten_thousand_rules_that_mark_is_judged() -> None:
    rule = Rule("", Action.NOTE, compile_condition("'none' in marks or true", Stage.CONNECT, {}), None, "")
    rules = tuple(replace(rule, name=f"r{number}", marks=(f"m{number % 500}",)) for number in range(10_000))
    where = context()
    decision = decide(Policy({Stage.CONNECT: rules}, {}, ()), Stage.CONNECT, where)
    assert len(decision.trail) == 10_000
    assert len(where.marks) == 500
