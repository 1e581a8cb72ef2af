"""The reference pages name what the program has, no more and no less."""

import re
from pathlib import Path

from pydantic import BaseModel

from gateway.config import Checks, Config, LocalDomain, RelayDomain, Route
from gateway.content.attachment import TRAITS
from gateway.content.types import TYPES
from gateway.message.mime import FAULTS
from gateway.policy.catalogue import ATTACHMENT, FACTS, FUNCTIONS
from gateway.policy.purefunctions import PURE
from gateway.spam.symbols import ALL as SYMBOLS
from gateway.telemetry.metrics import Metrics

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIRST = r"^\| `([^`]+)`"


def policy_page() -> tuple[str, str]:
    """Up to where it tells of the content of messages, and from there on."""
    before, _, after = (DOCS / "policy.md").read_text(encoding="utf-8").partition("## What is in a message")
    return before, after


def first_column(page: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)`", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE))


def keys() -> set[str]:
    found: set[str] = set()
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found.update(f"{name}.{key}" for key in section.model_fields if name != "checks")
    for name, field in Checks.model_fields.items():
        kind = field.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        found.update(f"checks.{name}.{key}" for key in kind.model_fields)
    assert not LocalDomain.model_fields
    found.add('domains."NAME"')
    found.update(f'relay_domains."NAME".{key}' for key in RelayDomain.model_fields)
    found.update(f"routes.NAME.{key}" for key in Route.model_fields)
    return found


def test_every_configuration_key_is_documented_and_none_else() -> None:
    assert first_column("configuration.md") == keys()


def test_every_fact_is_documented_and_none_else() -> None:
    functions = {*(f'{name}("…")' for name in FUNCTIONS), *(f"{name}(…)" for name in PURE)}
    assert set(re.findall(FIRST, policy_page()[0], re.MULTILINE)) == {*FACTS, *functions}


def test_every_symbol_of_the_spam_filter_is_documented_and_none_else() -> None:
    text = (DOCS / "spam.md").read_text(encoding="utf-8").partition("## Symbols")[2]
    assert set(re.findall(FIRST, text, re.MULTILINE)) == set(SYMBOLS)


def test_every_word_about_content_is_documented_and_none_else() -> None:
    text = policy_page()[1].partition("## The shipped policy")[0]
    assert set(re.findall(FIRST, text, re.MULTILINE)) == {*(f"a.{name}" for name in ATTACHMENT), *TRAITS, *FAULTS}
    assert all(f"`{word}`" in text for word in TYPES)


def test_every_metric_is_documented_and_none_else(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, "test-0")
    names = set()
    for value in vars(metrics).values():
        suffix = "_total" if value._type == "counter" else ""
        names.add(value._name + suffix)
    assert first_column("metrics.md") == names


def test_the_readme_names_the_two_commands_first() -> None:
    lines = (DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()
    indented = [line.strip() for line in lines if line.startswith("    ")]
    assert indented[0].startswith("make run")
    assert indented[1].startswith("make test")
