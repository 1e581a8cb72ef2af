"""`policy`: check, test, explain, facts, schema. It works on a folder, whether the gateway runs or not."""

import json
from pathlib import Path
from xml.sax.saxutils import quoteattr

import click

from gateway.cli.context import NO, config_option, guarded, json_option, printable, show
from gateway.cli.trail import trail_of
from gateway.config import load_config
from gateway.core.errors import ConfigError
from gateway.policy.cases import Result, run_cases
from gateway.policy.catalogue import COSTS, FACTS, FREE, FUNCTIONS, Fact, Function
from gateway.policy.loader import load_policy
from gateway.policy.purefunctions import PURE
from gateway.policy.rehearsal import Surroundings
from gateway.policy.rules import Policy
from gateway.policy.schema import rules_schema, tests_schema
from gateway.policy_folder import ground_of, surroundings_of

folder_argument = click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))


@click.group()
def policy() -> None:
    """Policies: check, test, explain."""


def open_policy(folder: Path | None, config_path: Path) -> tuple[Policy, Path, Surroundings]:
    """The policy, its folder, and what its tests are at home in; without a configuration nothing is local."""
    if folder is not None and not config_path.exists():
        return load_policy(folder), folder, Surroundings()
    config = load_config(config_path)
    where = folder or config.policies
    return load_policy(where, ground_of(config)), where, surroundings_of(config)


@policy.command("check")
@folder_argument
@config_option
def policy_check(folder: Path | None, config_path: Path) -> None:
    """Parse, check types, lint, run the tests."""

    def body() -> int:
        found, where, around = open_policy(folder, config_path)
        for warning in found.warnings:
            click.echo(f"warning: {warning}", err=True)
        results = run_cases(where, found, around)
        failed = [result for result in results if result.failure]
        for result in failed:
            click.echo(str(result), err=True)
        rules = sum(map(len, found.rules.values()))
        counts = f"{rules} rules, {len(found.lists)} lists, {len(results)} tests"
        click.echo(f"{where}: {counts}: {len(failed)} tests fail, {len(found.warnings)} warnings")
        return NO if failed else 0

    guarded(body)


@policy.command("test")
@folder_argument
@config_option
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results as JUnit XML.")
def policy_test(folder: Path | None, config_path: Path, junit: Path | None) -> None:
    """Run tests/*.yaml; a failing case is shown with the rules it went through."""

    def body() -> int:
        found, where, around = open_policy(folder, config_path)
        results = run_cases(where, found, around)
        for result in results:
            if result.failure:
                click.echo(f"FAILED {result.case.place}: {result.case.name}\n  {printable(result.failure)}")
                for line in trail_of(found, result.rehearsal):
                    click.echo(f"  {line}")
        failed = sum(bool(result.failure) for result in results)
        if junit is not None:
            _write_junit(junit, results)
        if not results:
            click.echo(f"{where}: no tests")
        click.echo(f"{len(results) - failed} passed, {failed} failed")
        return NO if failed else 0

    guarded(body)


def _write_junit(path: Path, results: list[Result]) -> None:
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<testsuite name="policy" tests="{len(results)}" failures="{sum(bool(each.failure) for each in results)}">',
    ]
    for result in results:
        file, _, line = result.case.place.rpartition(":")
        attributes = f"classname={quoteattr(file)} name={quoteattr(result.case.name)} line={quoteattr(line)}"
        if result.failure:
            lines.append(
                f"  <testcase {attributes}><failure message={quoteattr(printable(result.failure))}/></testcase>"
            )
        else:
            lines.append(f"  <testcase {attributes}/>")
    try:
        path.write_text("\n".join([*lines, "</testsuite>", ""]), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _row(each: Fact | Function, name: str) -> dict[str, object]:
    return {
        "name": name,
        "type": each.kind.value,
        "from": each.stage.value,
        "cost": COSTS[each.cost],
        "meaning": each.description,
    }


@policy.command("facts")
@json_option
def policy_facts(as_json: bool) -> None:
    """List the facts and functions that conditions may ask."""
    rows = [_row(each, each.name) for each in FACTS.values()]
    rows += [_row(each, f'{each.name}("…")') for each in FUNCTIONS.values()]
    rows += [
        {
            "name": f"{name}(…)",
            "type": each.kind.value,
            "from": "",
            "cost": COSTS[FREE],
            "meaning": f"of {each.usage}: {each.description}",
        }
        for name, each in PURE.items()
    ]
    show(rows, ("name", "type", "from", "cost", "meaning"), as_json=as_json)


@policy.command("schema")
@click.option("--tests", is_flag=True, help="Of the files in tests/ instead.")
def policy_schema(tests: bool) -> None:
    """Print the JSON Schema of policy files, for editors."""
    click.echo(json.dumps(tests_schema() if tests else rules_schema(), indent=2))
