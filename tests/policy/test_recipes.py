"""Each page of docs/recipes/ is a policy that loads without a warning and whose cases hold.

A page names each file in code (`policies/NAME`, or `smarthost.toml`) right before its block. Its policy files stand
alone here, so that what a recipe says is all that decides.
"""

import re
import tomllib
from pathlib import Path

import pytest

from gateway.policy.cases import run_cases
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import Surroundings
from gateway.policy.rules import Ground

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
PAGES = sorted(path for path in RECIPES.glob("*.md") if path.name != "README.md")
_BLOCK = re.compile(r"`((?:policies/|smarthost\.toml)[^`]*)`[^`]*\n\n```\w*\n(.*?)```", re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """What the page says stands in each file."""
    return dict(_BLOCK.findall(page.read_text(encoding="utf-8")))


def test_there_are_enough_and_the_index_names_them_all() -> None:
    assert len(PAGES) >= 15
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([a-z0-9-]+\.md)\)", index)) == {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_recipe_holds_what_it_says(page: Path, tmp_path: Path) -> None:
    files = files_of(page)
    blocks = page.read_text(encoding="utf-8").count("\n```\n") + page.read_text(encoding="utf-8").endswith("\n```")
    assert blocks == len(files), "a block without a file's name before it"
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings = tomllib.loads(files.get("smarthost.toml", ""))
    found = load_policy(tmp_path / "policies", Ground(routes=frozenset(settings.get("routes", {}))))
    assert found.warnings == ()
    results = run_cases(tmp_path / "policies", found, Surroundings())
    assert [str(result) for result in results if result.failure] == []
    tried = {step.rule for result in results for decision in result.rehearsal.decisions for step in decision.trail
             if step.matched != "no"}  # fmt: skip
    rules = {rule.name for stage in found.rules.values() for rule in stage}
    assert rules <= tried, f"no case is about {sorted(rules - tried)}"
