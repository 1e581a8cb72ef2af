"""The engine point by point: score and marks, effects, monitor rules, what is unknown, what is fetched and when."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.ident import LENGTH
from gateway.core.verdict import (
    Action,
    AddHeader,
    Bcc,
    Decision,
    Delay,
    Effect,
    Matched,
    Redirect,
    Stage,
    Step,
    TagSubject,
)
from gateway.policy.catalogue import DNS, FACTS, FREE, FUNCTIONS, SCAN, STATE, Fact, Function
from gateway.policy.context import ORDER, Context, Disposition, layers_from
from gateway.policy.engine import UNDECIDED, decide, judge
from gateway.policy.loader import load_policy
from gateway.policy.rules import ON_ERROR, Ground, OnUnknown, Policy
from gateway.policy.values import UNKNOWN, Found, Kind
from tests.support.policies import STRANGER, context, policy_of, write_policy

CONNECT, HELO, SENDER, RECIPIENT, MESSAGE = Stage
# Fetched facts: their provider says by its name what its failure means.
PROBES = (
    Fact("lax.a", Kind.BOOL, CONNECT, None, "", STATE, "skip"),
    Fact("lax.b", Kind.BOOL, CONNECT, None, "", STATE, "skip"),
    Fact("late.a", Kind.BOOL, CONNECT, None, "", DNS, "defer"),
    Fact("late.b", Kind.BOOL, CONNECT, None, "", SCAN, "defer"),
    Fact("strict.a", Kind.BOOL, CONNECT, None, "", SCAN, "match"),
    Fact("probe.text", Kind.TEXT, CONNECT, None, "", DNS, "skip"),
    Fact("probe.number", Kind.NUMBER, CONNECT, None, "", DNS, "skip"),
    Fact("probe.list", Kind.LIST, CONNECT, None, "", DNS, "skip"),
    Fact("probe.sender", Kind.BOOL, SENDER, None, "", DNS, "skip"),
    Fact("probe.recipient", Kind.BOOL, RECIPIENT, None, "", DNS, "skip"),
    Fact("probe.virus", Kind.BOOL, CONNECT, None, "", SCAN, "antivirus"),
)
WAYS = {way.value: way for way in OnUnknown}


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for fact in PROBES:
        monkeypatch.setitem(FACTS, fact.name, fact)
    zone = Function("zone", Kind.BOOL, CONNECT, None, "", cost=DNS, provider="match")
    monkeypatch.setitem(FUNCTIONS, "zone", zone)


def policy(folder: Path, rules: str, *, stage: str = "connect", on_error: Mapping[str, OnUnknown] = WAYS) -> Policy:
    return load_policy(write_policy(folder, {"a.yaml": f"stage: {stage}\nrules:\n{rules}\n"}), Ground(on_error))


class Fetching:
    """Answers needs from a table, what is not in it as unknown; remembers the keys asked for."""

    def __init__(self, **answers: Found) -> None:
        self.answers = {name.replace("__", "."): value for name, value in answers.items()}
        self.keys: list[str] = []

    def run(self, policy: Policy, where: Context, stage: Stage = CONNECT) -> Decision:
        judgement = judge(policy, stage, where)
        try:
            need = next(judgement)
            while True:
                self.keys.append(need.key)
                need = judgement.send(self.answers.get(need.key, UNKNOWN))
        except StopIteration as done:
            decision: Decision = done.value
            return decision


def outcome(decision: Decision) -> tuple[str, str]:
    return decision.verdict.action.value, decision.verdict.rule


# --- score and marks --------------------------------------------------------------------------------------------------


def test_later_rules_see_the_score_and_marks_of_earlier_ones(tmp_path: Path) -> None:
    rules = (
        "  - reject: too early\n    when: score > 0 or 'odd' in marks\n"
        "  - note: first\n    do: {score: 2, mark: odd}\n"
        "  - note: second\n    when: score == 2 and 'odd' in marks\n    do: {score: -0.5, mark: [even, odd]}\n"
        "  - reject: seen\n    when: score == 1.5 and count(marks) == 2 and 'even' in marks\n"
    )
    decision = decide(policy(tmp_path, rules), CONNECT, context())
    assert outcome(decision) == ("reject", "seen")
    assert decision.score == 1.5
    assert set(decision.marks) == {"odd", "even"}


STAGED = {
    stage.value: f"stage: {stage}\nrules:\n  - note: at {stage}\n    do: {{score: {2**number}, mark: at-{stage}}}\n"
    for number, stage in enumerate(Stage)
}


def test_score_and_marks_add_up_over_the_stages_each_in_its_own_layer(tmp_path: Path) -> None:
    files = {f"{number}.yaml": text for number, text in enumerate(STAGED.values())}
    files["9.yaml"] = "stage: message\nrules:\n  - reject: all\n    when: score == 31 and count(marks) == 5\n"
    staged = policy_of(tmp_path, files)
    where = context()
    given = []
    for stage in Stage:
        where.seen = {}
        decision = decide(staged, stage, where)
        given.append((decision.score, decision.marks))
    assert outcome(decision) == ("reject", "all")
    assert given == [(2.0**number, (f"at-{stage}",)) for number, stage in enumerate(Stage)]
    assert [(layer.score, layer.marks) for layer in where.layers] == given


@pytest.mark.parametrize(
    ("begun", "score", "marks"),
    [
        (HELO, 1, ("at-connect",)),
        (SENDER, 3, ("at-connect", "at-helo")),
        (RECIPIENT, 7, ("at-connect", "at-helo", "at-sender")),
        (MESSAGE, 15, ("at-connect", "at-helo", "at-sender", "at-recipient")),
    ],
)
def test_new_layers_take_back_what_their_stage_and_later_ones_gave(
    tmp_path: Path, begun: Stage, score: float, marks: tuple[str, ...]
) -> None:
    staged = policy_of(tmp_path, {f"{number}.yaml": text for number, text in enumerate(STAGED.values())})
    where = context()
    for stage in Stage:
        decide(staged, stage, where)
    where.layers = layers_from(where.layers, begun)
    assert (where.score, where.marks) == (score, marks)


@pytest.mark.parametrize(
    ("expression", "answers", "score"),
    [
        ("3", {}, 5.0),
        ("score * 2", {}, 6.0),
        ("-score", {}, 0.0),
        ("1.5 + session.errors * 2 - 1", {}, 8.5),
        ("client.port - 39999", {}, 3.0),
        ("count(marks)", {}, 3.0),
        ("probe.number * 2", {"probe.number": 4}, 10.0),
        ("probe.number + 1", {"probe.number": None}, 2.0),
        ("probe.number + 1", {"probe.number": UNKNOWN}, 2.0),
    ],
)
def test_a_score_is_what_its_expression_gives_and_nothing_where_that_is_not_known(
    tmp_path: Path, expression: str, answers: dict[str, Found], score: float
) -> None:
    rules = f"  - note: a\n    do: {{score: 2, mark: x}}\n  - note: b\n    do: {{score: {expression}}}\n"
    decision = decide(policy(tmp_path, rules), CONNECT, context(errors=3), lambda need: answers[need.key])
    assert decision.score == score


# --- notes, decisions, monitor rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["", "\n    when: client.port > 0", "\n    when: lax.a\n    on_unknown: match"])
def test_a_note_decides_nothing(tmp_path: Path, when: str) -> None:
    decision = decide(policy(tmp_path, f"  - note: n{when}\n    do: {{mark: x}}\n"), CONNECT, context())
    assert outcome(decision) == ("accept", "")
    assert decision.id == ""
    assert decision.marks == ("x",)
    assert decision.trail[-1] == Step("n", Action.NOTE, Matched.YES)
    after = policy(tmp_path, f"  - note: n{when}\n  - reject: r\n")
    assert outcome(decide(after, CONNECT, context())) == ("reject", "r")


@pytest.mark.parametrize("action", list(Action))
def test_a_monitor_rule_applies_nothing_and_later_rules_run_as_if_it_were_absent(
    tmp_path: Path, action: Action
) -> None:
    rules = (
        f"  - {action}: watched\n    mode: monitor\n"
        "    do: {score: 7, mark: x, add_header: 'X-A: b', tag_subject: '[T]', redirect: a@b.example, "
        "bcc: c@d.example, delay: 5}\n"
        "  - reject: seen\n    when: score != 0 or 'x' in marks\n"
        "  - accept: end\n"
    )
    where = context()
    decision = decide(policy(tmp_path, rules), CONNECT, where)
    assert outcome(decision) == ("accept", "end")
    assert decision.trail == (Step("watched", action, Matched.WOULD), Step("end", Action.ACCEPT, Matched.YES))
    assert (decision.score, decision.marks, decision.effects) == (0.0, (), ())
    layer = where.layers[0]
    assert (layer.score, layer.marks, layer.effects, layer.disposition) == (0.0, (), (), None)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    ("way", "steps"),
    [("skip", [Matched.UNKNOWN]), ("defer", [Matched.UNKNOWN]), ("match", [Matched.UNKNOWN, Matched.WOULD])],
)
def test_a_monitor_rule_whose_condition_is_unknown_defers_nothing(
    tmp_path: Path, action: Action, way: str, steps: list[Matched]
) -> None:
    rules = f"  - {action}: watched\n    mode: monitor\n    when: late.a\n    on_unknown: {way}\n"
    decision = decide(policy(tmp_path, rules), CONNECT, context())
    assert outcome(decision) == ("accept", "")
    assert [step.matched for step in decision.trail] == steps


def test_an_effect_of_a_monitor_rule_fetches_nothing(tmp_path: Path) -> None:
    rules = "  - reject: r\n    mode: monitor\n    do: {score: probe.number, add_header: 'X: {probe.text}'}\n"
    fetching = Fetching()
    fetching.run(policy(tmp_path, rules), context())
    assert fetching.keys == []


@pytest.mark.parametrize("action", [Action.DISCARD, Action.QUARANTINE, Action.HOLD])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_disposition_is_set_on_the_layer_of_its_stage(tmp_path: Path, action: Action, stage: Stage) -> None:
    where = context()
    decision = decide(policy(tmp_path, f"  - {action}: aside\n  - reject: r\n", stage=stage.value), stage, where)
    assert decision.verdict.action is action
    assert (decision.verdict.rule, decision.verdict.reply, decision.verdict.refuses) == ("aside", None, False)
    assert len(decision.id) == LENGTH
    number = ORDER[stage]
    assert [layer.disposition for layer in where.layers] == [
        Disposition(action, "aside") if place == number else None for place in range(len(Stage))
    ]


def test_only_the_rule_that_keeps_a_message_says_who_may_release_it(tmp_path: Path) -> None:
    rules = (
        '  - quarantine: theirs\n    when: client.ip == "192.0.2.1"\n    do: {self_release: true}\n'
        "  - quarantine: ours\n"
    )  # fmt: skip
    for ip, disposition in (
        ("192.0.2.1", Disposition(Action.QUARANTINE, "theirs", is_self_released=True)),
        ("192.0.2.2", Disposition(Action.QUARANTINE, "ours")),
    ):
        where = context(replace(STRANGER, client_ip=ip))
        decide(policy(tmp_path, rules), CONNECT, where)
        assert where.layers[0].disposition == disposition


@pytest.mark.parametrize("action", [each for each in Action if each is not Action.QUARANTINE])
def test_no_other_rule_says_who_may_release(tmp_path: Path, action: Action) -> None:
    with pytest.raises(ConfigError, match="is for a rule that quarantines"):
        policy(tmp_path, f"  - {action}: x\n    do: {{self_release: true}}\n")


@pytest.mark.parametrize("action", ["accept", "reject", "defer", "note"])
def test_other_actions_set_no_disposition(tmp_path: Path, action: str) -> None:
    where = context()
    decide(policy(tmp_path, f"  - {action}: x\n"), CONNECT, where)
    assert where.layers[0].disposition is None


# --- effects ----------------------------------------------------------------------------------------------------------


def test_effects_come_in_the_order_of_rules_and_keys(tmp_path: Path) -> None:
    rules = (
        "  - note: one\n    do: {delay: 2.5, add_header: 'X-A: {client.ip}:{client.port}', bcc: c@d.example}\n"
        "  - note: other\n    when: auth.user\n    do: {delay: 9}\n"
        "  - reject: two\n    do: {tag_subject: '[T]', redirect: A@B.example, delay: 30}\n"
        "  - note: never\n    do: {delay: 1}\n"
    )
    where = context()
    decision = decide(policy(tmp_path, rules), CONNECT, where)
    expected: tuple[Effect, ...] = (
        Delay(2.5),
        AddHeader("X-A", "203.0.113.7:40000"),
        Bcc("c@d.example"),
        TagSubject("[T]"),
        Redirect("A@b.example"),
        Delay(30.0),
    )
    assert decision.effects == expected
    assert where.layers[0].effects == expected
    assert all(layer.effects == () for layer in where.layers[1:])


@pytest.mark.parametrize("action", list(Action))
def test_a_rule_of_any_action_has_its_effects(tmp_path: Path, action: Action) -> None:
    decision = decide(
        policy(tmp_path, f"  - {action}: x\n    do: {{score: 1, mark: m, delay: 3}}\n"), CONNECT, context()
    )
    assert (decision.score, decision.marks, decision.effects) == (1.0, ("m",), (Delay(3.0),))


@pytest.mark.parametrize(("text", "seconds"), [("0.001", 0.001), ("30", 30.0), ("30.0", 30.0), ("1e1", 10.0)])
def test_a_delay_within_the_bounds_is_taken(tmp_path: Path, text: str, seconds: float) -> None:
    found = decide(policy(tmp_path, f"  - note: n\n    do: {{delay: {text}}}\n"), CONNECT, context()).effects
    assert found == (Delay(seconds),)


# --- what could not be learnt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "way", "expected"),
    [
        ("reject", "skip", ("accept", "end")),
        ("reject", "defer", ("defer", "r")),
        ("reject", "match", ("reject", "r")),
        ("accept", "skip", ("accept", "end")),
        ("accept", "defer", ("defer", "r")),
        ("accept", "match", ("accept", "r")),
        ("quarantine", "match", ("quarantine", "r")),
        ("hold", "defer", ("defer", "r")),
        ("note", "skip", ("accept", "end")),
        ("note", "defer", ("defer", "r")),
        ("note", "match", ("accept", "end")),
    ],
)
def test_a_rule_says_what_happens_where_its_condition_stays_unknown(
    tmp_path: Path, action: str, way: str, expected: tuple[str, str]
) -> None:
    rules = f"  - {action}: r\n    when: strict.a\n    on_unknown: {way}\n  - accept: end\n"
    assert outcome(decide(policy(tmp_path, rules), CONNECT, context())) == expected


@pytest.mark.parametrize(
    ("action", "when", "expected"),
    [
        ("reject", "lax.a", ("accept", "end")),
        ("reject", "late.a", ("defer", "r")),
        ("reject", "strict.a", ("reject", "r")),
        ("defer", "strict.a", ("defer", "r")),
        ("reject", "zone('x')", ("reject", "r")),
        ("reject", "not zone('x')", ("reject", "r")),
        ("accept", "lax.a", ("accept", "end")),
        ("accept", "late.a", ("defer", "r")),
        ("accept", "strict.a", ("accept", "end")),
        ("discard", "strict.a", ("accept", "end")),
        ("quarantine", "strict.a", ("accept", "end")),
        ("hold", "strict.a", ("accept", "end")),
        ("reject", "lax.a and late.a", ("defer", "r")),
        ("reject", "late.a or lax.a", ("defer", "r")),
        ("reject", "lax.a and late.a and strict.a", ("reject", "r")),
        ("reject", "strict.a and late.a", ("reject", "r")),
        ("accept", "strict.a and lax.a", ("accept", "end")),
        ("accept", "strict.a and late.a", ("defer", "r")),
        ("reject", "strict.a and client.trusted", ("accept", "end")),
        ("reject", "strict.a or client.port > 0", ("reject", "r")),
    ],
)
def test_without_a_word_of_the_rule_the_strictest_provider_decides_and_an_accept_never_matches(
    tmp_path: Path, action: str, when: str, expected: tuple[str, str]
) -> None:
    rules = f"  - {action}: r\n    when: {when}\n  - accept: end\n"
    assert outcome(decide(policy(tmp_path, rules), CONNECT, context())) == expected


@pytest.mark.parametrize(
    ("when", "known", "expected"),
    [
        ("strict.a and lax.a", {"strict.a": True}, ("accept", "end")),
        ("late.a and strict.a", {"late.a": True}, ("reject", "r")),
        ("strict.a == lax.a", {"lax.a": True}, ("reject", "r")),
        ("strict.a and late.a", {"strict.a": True}, ("defer", "r")),
    ],
)
def test_only_providers_that_failed_have_a_say(
    tmp_path: Path, when: str, known: dict[str, Found], expected: tuple[str, str]
) -> None:
    rules = f"  - reject: r\n    when: {when}\n  - accept: end\n"
    found = decide(policy(tmp_path, rules), CONNECT, context(), lambda need: known.get(need.key, UNKNOWN))
    assert outcome(found) == expected


@pytest.mark.parametrize(
    ("fact", "expected"), [("probe.virus", ("defer", "r")), ("late.a", ("accept", "")), ("strict.a", ("accept", ""))]
)
def test_only_a_virus_scanner_that_failed_defers_unless_the_config_says_more(
    tmp_path: Path, fact: str, expected: tuple[str, str]
) -> None:
    rules = policy(tmp_path, f"  - reject: r\n    when: {fact}\n", on_error=ON_ERROR)
    assert outcome(decide(rules, CONNECT, context())) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("", ("defer", "late")),
        ("  - accept: end\n", ("defer", "late")),
        ("  - quarantine: end\n", ("defer", "late")),
        ("  - hold: end\n", ("defer", "late")),
        ("  - discard: end\n", ("defer", "late")),
        ("  - note: end\n", ("defer", "late")),
        ("  - reject: end\n", ("reject", "end")),
        ("  - defer: end\n", ("defer", "end")),
        ("  - reject: end\n    when: strict.a\n", ("reject", "end")),
        ("  - reject: end\n    when: auth.user\n", ("defer", "late")),
        ("  - reject: end\n    mode: monitor\n", ("defer", "late")),
        ("  - note: second\n    when: late.b\n", ("defer", "late")),
    ],
)
def test_a_postponed_deferral_wins_unless_a_later_rule_refuses(
    tmp_path: Path, end: str, expected: tuple[str, str]
) -> None:
    where = context()
    decision = decide(policy(tmp_path, "  - reject: late\n    when: late.a\n" + end), CONNECT, where)
    assert outcome(decision) == expected
    assert decision.trail[0] == Step("late", Action.REJECT, Matched.UNKNOWN)
    assert where.layers[0].disposition is None
    assert len(decision.id) == LENGTH
    if expected[1] == "late":
        assert decision.verdict.reply == UNDECIDED.with_id(decision.id)
        assert str(decision.verdict.reply).startswith("451 4.7.1 ")


def test_a_rule_before_a_postponed_deferral_ends_the_stage(tmp_path: Path) -> None:
    fetching = Fetching()
    rules = policy(tmp_path, "  - accept: first\n    when: client.port\n  - reject: late\n    when: late.a\n")
    assert outcome(fetching.run(rules, context())) == ("accept", "first")
    assert fetching.keys == []


# --- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("listed", "listed"),
        (UNKNOWN, "unknown"),
        (None, "none"),
        ("", ""),
        ("a\r\nb\0é\ud800", "a??b???"),
        ("x" * 400, "x" * 320),
    ],
)
def test_a_place_of_a_reply_or_header_fetches_its_fact(tmp_path: Path, value: Found, shown: str) -> None:
    rules = (
        "  - reject: r\n    reply: 550 5.7.1 <{probe.text}> no\n"
        "    do: {add_header: 'X-Why: <{probe.text}> {client.ip}'}\n"
    )
    fetching = Fetching(probe__text=value)
    decision = fetching.run(policy(tmp_path, rules), context())
    assert fetching.keys == ["probe.text"]
    assert decision.effects == (AddHeader("X-Why", f"<{shown}> 203.0.113.7"),)
    assert str(decision.verdict.reply) == f"550 5.7.1 <{shown}> no [{decision.id}]"


@pytest.mark.parametrize(
    ("fact", "value", "shown"),
    [
        ("probe.list", ("a", "b"), "a b"),
        ("probe.list", (), ""),
        ("probe.number", 7, "7"),
        ("late.b", UNKNOWN, "unknown"),
    ],
)
def test_a_place_shows_values_of_other_kinds(tmp_path: Path, fact: str, value: Found, shown: str) -> None:
    rules = f"  - defer: r\n    reply: 451 4.7.1 <{{{fact}}}>\n"
    decision = decide(policy(tmp_path, rules), CONNECT, context(), lambda need: value)
    assert str(decision.verdict.reply) == f"451 4.7.1 <{shown}> [{decision.id}]"


def test_the_places_of_a_rule_that_does_not_match_fetch_nothing(tmp_path: Path) -> None:
    rules = "  - reject: r\n    when: auth.user\n    reply: 550 5.7.1 {probe.text}\n    do: {score: probe.number}\n"
    fetching = Fetching()
    fetching.run(policy(tmp_path, rules), context())
    assert fetching.keys == []


# --- what is fetched, and when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "answers", "keys"),
    [
        ("client.trusted and lax.a", {}, []),
        ("lax.a and client.trusted", {}, []),
        ("client.port > 0 or strict.a", {}, []),
        ("strict.a or client.port > 0", {}, []),
        ("not auth.user and strict.a", {}, ["strict.a"]),
        ("not (auth.user or strict.a)", {}, ["strict.a"]),
        ("strict.a and lax.a", {"lax.a": False}, ["lax.a"]),
        ("strict.a and lax.a", {"lax.a": True}, ["lax.a", "strict.a"]),
        ("strict.a and lax.a", {"lax.a": UNKNOWN}, ["lax.a", "strict.a"]),
        ("strict.a or lax.a", {"lax.a": True}, ["lax.a"]),
        ("strict.a or lax.a", {"lax.a": False}, ["lax.a", "strict.a"]),
        ("late.b and late.a and lax.b", {"lax.b": True, "late.a": True}, ["lax.b", "late.a", "late.b"]),
        ("(strict.a or late.a) and (lax.a or late.b)", {"lax.a": True, "late.a": True}, ["lax.a", "late.a"]),
        ("(strict.a and client.trusted) or late.b", {}, ["late.b"]),
        ("strict.a == lax.a", {"lax.a": True, "strict.a": True}, ["lax.a", "strict.a"]),
        ("lax.a and lax.b", {"lax.a": True}, ["lax.a", "lax.b"]),
        ("strict.a and not strict.a", {"strict.a": True}, ["strict.a"]),
        ("zone('y') and zone('x') and lax.a", {'zone("y")': False, "lax.a": True}, ["lax.a", 'zone("y")']),
        ("any(m == 'x' and strict.a for m in probe.list)", {"probe.list": ("y",)}, ["probe.list"]),
        ("any(m == 'x' and strict.a for m in probe.list)", {"probe.list": ("y", "x")}, ["probe.list", "strict.a"]),
        ("any(strict.a or m == 'x' for m in probe.list)", {"probe.list": ("y", "x")}, ["probe.list"]),
        ("all(m == 'x' and strict.a for m in probe.list)", {"probe.list": ("x", "y")}, ["probe.list"]),
        ("any(m == 'x' or lax.a for m in probe.list) and late.b", {"probe.list": ("y", "x")}, ["probe.list", "late.b"]),
        ("('x' in probe.list or probe.text == 'x')", {"probe.list": ("x",)}, ["probe.list"]),
    ],
)  # fmt: skip
def test_a_fact_is_fetched_only_if_the_answer_hangs_on_it_and_the_cheapest_first(
    tmp_path: Path, when: str, answers: dict[str, Found], keys: list[str]
) -> None:
    fetching = Fetching()
    fetching.answers = answers
    where = context()
    fetching.run(policy(tmp_path, f"  - note: n\n    when: {when}\n"), where)
    assert fetching.keys == keys
    assert where.pending == []


def test_a_need_tells_what_is_wanted(tmp_path: Path) -> None:
    rules = policy(tmp_path, "  - note: n\n    when: zone('x.example') and probe.recipient\n", stage="message")
    judgement = judge(rules, MESSAGE, context())
    first = next(judgement)
    assert (first.key, first.name, first.arguments) == ('zone("x.example")', "zone", ("x.example",))
    assert (first.stage, first.cost, first.provider) == (CONNECT, DNS, "match")
    second = judgement.send(True)
    assert (second.key, second.arguments, second.stage) == ("probe.recipient", (), RECIPIENT)


@pytest.mark.parametrize("value", [True, False, UNKNOWN])
def test_a_fact_is_fetched_once_for_all_rules_and_effects(tmp_path: Path, value: Found) -> None:
    rules = (
        "  - note: a\n    when: lax.a\n  - note: b\n    when: not lax.a\n"
        "  - note: c\n    do: {add_header: 'X: {lax.a}', score: probe.number}\n"
        "  - note: d\n    when: probe.number > 1\n    do: {score: probe.number}\n"
        "  - reject: e\n    reply: 550 5.7.1 {lax.a} {probe.number}\n"
    )
    fetching = Fetching(lax__a=value, probe__number=2)
    decision = fetching.run(policy(tmp_path, rules), context())
    assert fetching.keys == ["lax.a", "probe.number"]
    assert decision.facts == {"lax.a": value, "probe.number": 2}


def test_a_fetched_fact_stays_in_the_layer_of_its_stage(tmp_path: Path) -> None:
    rules = policy(tmp_path, "  - note: n\n    when: probe.sender and probe.recipient\n", stage="recipient")
    where = context(sender="", recipient="alice@example.org")
    fetching = Fetching(probe__sender=True, probe__recipient=True)

    fetching.run(rules, where, RECIPIENT)
    assert [dict(layer.known) for layer in where.layers] == [
        {}, {}, {"probe.sender": True}, {"probe.recipient": True}, {}
    ]  # fmt: skip
    for begun, again in (
        (MESSAGE, []),
        (RECIPIENT, ["probe.recipient"]),
        (SENDER, ["probe.sender", "probe.recipient"]),
    ):
        fetching.keys = []
        anew = context(sender="", recipient="alice@example.org")
        anew.layers = layers_from(where.layers, begun)
        fetching.run(rules, anew, RECIPIENT)
        assert fetching.keys == again


def test_a_fact_that_is_free_is_never_asked_for(tmp_path: Path) -> None:
    names = [name for name, fact in FACTS.items() if not fact.provider and fact.kind is Kind.BOOL]
    rules = policy(
        tmp_path, f"  - note: n\n    when: {' and '.join(f'{name} != none' for name in names[:12])}\n", stage="message"
    )
    fetching = Fetching()
    fetching.run(rules, context(sender="", recipient="alice@example.org", message=b"X: y\r\n\r\n"), MESSAGE)
    assert fetching.keys == []
    assert all(FACTS[name].cost == FREE for name in names)


# --- the trail --------------------------------------------------------------------------------------------------------


def test_the_trail_leaves_out_rules_that_simply_did_not_match_unless_all_are_asked_for(tmp_path: Path) -> None:
    rules = policy(
        tmp_path,
        "  - reject: no\n    when: auth.user\n"
        "  - accept: skipped\n    when: lax.a\n"
        "  - reject: watched no\n    when: auth.user\n    mode: monitor\n"
        "  - reject: watched\n    when: client.port\n    mode: monitor\n"
        "  - note: noted\n    when: lax.b\n    on_unknown: match\n"
        "  - hold: held\n"
        "  - reject: not reached\n",
    )
    short = [
        ("skipped", Matched.UNKNOWN),
        ("watched", Matched.WOULD),
        ("noted", Matched.UNKNOWN),
        ("noted", Matched.YES),
        ("held", Matched.YES),
    ]
    assert [(step.rule, step.matched) for step in decide(rules, CONNECT, context()).trail] == short
    full = decide(rules, CONNECT, context(), full=True).trail
    assert [(step.rule, step.matched) for step in full] == [
        ("no", Matched.NO),
        short[0],
        ("watched no", Matched.NO),
        *short[1:],
    ]
    assert full[0].action is Action.REJECT
