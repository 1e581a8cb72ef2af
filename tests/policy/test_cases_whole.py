"""A policy's own tests must not hold for want of the stages that would break them."""

from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.policy.cases import run_cases
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import Surroundings

SCORES = "stage: recipient\nrules:\n  - note: always\n    do: {score: 3, mark: seen, add_header: 'X-A: b'}\n"


@pytest.mark.parametrize("expect", ["score: 0", "marks: []", "effects: []"])
def test_what_is_expected_of_all_stages_is_not_looked_for_in_the_first_only(tmp_path: Path, expect: str) -> None:
    (tmp_path / "rules.yaml").write_text(SCORES)
    (tmp_path / "tests").mkdir()
    case = f"tests:\n  - test: nothing is given\n    given: {{client.ip: 192.0.2.9}}\n    expect: {{{expect}}}\n"
    (tmp_path / "tests" / "cases.yaml").write_text(case)
    (result,) = run_cases(tmp_path, load_policy(tmp_path), Surroundings(domains=frozenset({"example.org"})))
    assert result.failure


@pytest.mark.parametrize(
    "condition", ["client.reverse_dns == none", "client.reverse_dns in [none]", "not client.reverse_dns"]
)
def test_a_fact_that_is_always_one_of_its_words_is_never_none(tmp_path: Path, condition: str) -> None:
    """`none` beside `"none"`: the rule would never match, and nobody would be told."""
    (tmp_path / "rules.yaml").write_text(f"stage: connect\nrules:\n  - reject: nameless\n    when: {condition}\n")
    try:
        policy = load_policy(tmp_path)
    except ConfigError:
        return
    assert policy.warnings
