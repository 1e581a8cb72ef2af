"""What once went wrong in the engine and the language, each as the smallest policy that shows it."""

import math
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.verdict import Action, Stage
from gateway.policy import catalogue
from gateway.policy.catalogue import DNS, SCAN, Fact
from gateway.policy.context import ORDER, Need
from gateway.policy.engine import decide
from gateway.policy.loader import load_policy
from gateway.policy.rules import Ground, OnUnknown
from gateway.policy.values import UNKNOWN, Found, Kind
from tests.support.policies import context, policy_of, write_policy

HEAD = "stage: connect\nrules:\n"
VALUES: dict[str, Found] = {"t.a": UNKNOWN, "t.b": True, "t.c": UNKNOWN}


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cost, provider in (("t.a", SCAN, "strict"), ("t.b", DNS, "lax"), ("t.c", DNS, "lax")):
        fact = Fact(name, Kind.BOOL, Stage.CONNECT, None, "of a test", cost, provider)
        monkeypatch.setitem(catalogue.FACTS, name, fact)


@pytest.mark.usefixtures("facts")
@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize("first", ["", "  - note: m\n    when: t.a\n    mode: monitor\n"])
@pytest.mark.parametrize("condition", ["(t.a or t.b) and t.c", "(t.b or t.a) and t.c", "t.c and (t.a or t.b)"])
def test_only_what_the_answer_hangs_on_says_what_unknown_means(
    tmp_path: Path, is_eager: bool, first: str, condition: str
) -> None:
    folder = write_policy(tmp_path, {"a.yaml": f"{HEAD}{first}  - reject: r\n    when: {condition}\n"})
    policy = load_policy(folder, Ground({"strict": OnUnknown.MATCH, "lax": OnUnknown.SKIP}))
    where = context()
    if is_eager:
        where.layers[ORDER[Stage.CONNECT]].known.update(VALUES)

    def fetch(need: Need) -> Found:
        return VALUES[need.key]

    assert decide(policy, Stage.CONNECT, where, fetch).verdict.action is Action.ACCEPT


@pytest.mark.parametrize(
    ("given", "condition", "shown"),
    [("score: 5", "score == 0", "score 5.0, marks "), ("mark: x", "not ('x' in marks)", "score 0.0, marks x")],
)
def test_a_reply_shows_the_score_and_marks_of_now(tmp_path: Path, given: str, condition: str, shown: str) -> None:
    rules = f"  - note: a\n    when: {condition}\n    do: {{{given}}}\n"
    rules += "  - reject: b\n    reply: 550 5.7.1 score {score}, marks {marks}\n"
    reply = decide(policy_of(tmp_path, {"a.yaml": HEAD + rules}), Stage.CONNECT, context()).verdict.reply
    assert f"5.7.1 {shown} [" in str(reply)


def test_arithmetic_is_bounded_and_never_raises(tmp_path: Path) -> None:
    product = " * ".join(["client.port", *["9007199254740992"] * 20, "1.5"])
    rules = [f"  - note: p\n    when: {product} > 0\n    do: {{score: {product}}}\n"]
    rules += [f"  - note: n{n}\n    do: {{score: 1 + score * 9007199254740992.0}}\n" for n in range(30)]
    rules.append("  - note: last\n    do: {score: score - score}\n")
    decision = decide(policy_of(tmp_path, {"a.yaml": HEAD + "".join(rules)}), Stage.CONNECT, context())
    assert math.isfinite(decision.score)
    assert decision.trail[0].rule == "p"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("when: count(@nets) > 2", "4:17: `count`: a list that is a fact is wanted"),
        ("when: client.port < count(@nets)", "4:31: `count`"),
        ("when: helo.name == '''a @b'''", "a text stands in one pair of quotes"),
        ("reply: 550 5.7.1 {client.ip}}", "4:33: a brace without its other half"),
        ('do: {add_header: "Received-SPF: pass"}', "`Received-SPF` is not a rule's to add"),
        ('do: {add_header: "X-A: b\\r\\nX-B: c"}', "one line of printable characters"),
    ],
)
def test_this_is_refused_at_load(tmp_path: Path, rule: str, message: str) -> None:
    text = f"stage: helo\nrules:\n  - reject: a\n    {rule}\n"
    with pytest.raises(ConfigError, match=r"a\.yaml") as caught:
        policy_of(tmp_path, {"a.yaml": text, "lists/nets.networks": "10.0.0.0/8\n"})
    assert message in str(caught.value)
