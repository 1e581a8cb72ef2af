"""Facts that are one of a few words: a word that is none of them is an error, wherever it is written."""

from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.verdict import Stage
from gateway.policy.cases import given
from gateway.policy.catalogue import FACTS
from gateway.policy.expression import compile_condition
from gateway.policy.syntax import ExpressionError
from gateway.policy.values import Kind
from tests.support.policies import policy_of


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ('greylist.state == "pased"', "`pased` is none of new, waiting, passed. Did you mean `passed`?"),
        ('"Pass" == client.reverse_dns', "`Pass` is none of pass, fail, none. Did you mean `pass`?"),
        ('greylist.state != "old"', "`old` is none of new, waiting, passed"),
        ('session.listener in ["smtp", "imap"]', "`imap` is none of smtp, submission, submissions"),
        ('session.direction not in ["out"]', "`out` is none of inbound, outbound, internal"),
    ],
)
def test_a_word_that_the_fact_never_is(condition: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_condition(condition, Stage.MESSAGE, {})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "condition",
    [
        'greylist.state == "passed"', 'client.reverse_dns in ["fail", "none"]', "client.reverse_dns == client.name",
        'greylist.state == lower("New")', "session.listener == session.direction", 'client.name == "anything"',
    ],
)  # fmt: skip
def test_what_may_be_compared(condition: str) -> None:
    compile_condition(condition, Stage.MESSAGE, {})


def test_the_error_has_its_place(tmp_path: Path) -> None:
    rules = 'stage: recipient\nrules:\n  - defer: wait\n    when: greylist.state == "nwe"\n'
    with pytest.raises(ConfigError) as caught:
        policy_of(tmp_path, {"40-recipient.yaml": rules})
    assert "policies/40-recipient.yaml:4:29: `nwe` is none of new, waiting, passed. Did you mean `new`?" in str(
        caught.value
    )


def test_a_case_gives_one_of_the_words_and_none_is_one_for_reverse_dns() -> None:
    assert given("client.reverse_dns", "none") == ("client.reverse_dns", "none")
    assert given("client.name", "none") == ("client.name", None)
    with pytest.raises(ValueError, match="one of new, waiting, passed is wanted here"):
        given("greylist.state", "none")


def test_the_neutral_value_is_one_of_them() -> None:
    for fact in FACTS.values():
        neutral = fact.neutral if fact.kind is Kind.LIST else (fact.neutral,)
        assert not fact.words or fact.read is not None or set(neutral) <= set(fact.words)
