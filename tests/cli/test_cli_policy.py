"""The `policy` commands: check, test, explain, facts, schema; exit codes, places of errors, what a writer sees."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.cli import Cli

RULES = """\
stage: recipient
rules:
  - note: friends
    when: sender.domain in @friends
    do: {mark: friend, score: -2}
  - reject: strangers may not relay through us
    when: not (recipient.is_local or recipient.is_relayed) and not client.trusted
    reply: 554 5.7.1 <{recipient.address}>: relay access denied
"""
CASES = """\
domains: [example.org]
tests:
  - test: a stranger cannot relay
    given: {client.ip: 203.0.113.7, recipient.address: b@example.com}
    expect: {reject: strangers may not relay through us, reply: b@example.com}
  - test: friends are marked
    given: {sender.address: x@friend.example, recipient.address: b@example.org}
    expect: {accept: none, note: friends, marks: [friend], score: -2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("40-recipient.yaml", RULES),
        ("lists/friends.domains", "friend.example\n"),
        ("tests/relay.yaml", CASES),
    ):
        path = tmp_path / "policies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "policies"


def test_check_counts_and_says_yes(cli: Cli, folder: Path) -> None:
    out = cli("policy", "check", str(folder)).expect(0).stdout
    assert "2 rules, 1 lists, 2 tests: 0 tests fail, 0 warnings" in out


def test_check_names_the_place_of_an_error(cli: Cli, folder: Path) -> None:
    (folder / "40-recipient.yaml").write_text(RULES.replace("client.trusted", "client.trsted"))
    error = cli("policy", "check", str(folder)).expect(1).stderr
    assert "policies/40-recipient.yaml:7:68: unknown fact `client.trsted`. Did you mean `client.trusted`?" in error
    assert error.rstrip().endswith("^" * len("client.trsted"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "client.ip: 203",
            "client.ipp: 203",
            "policies/tests/relay.yaml:4:13: unknown fact `client.ipp`. Did you mean",
        ),
        ("client.ip: 203.0.113.7", "client.ip: here", "4:24: 'here' does not appear to be an IPv4 or IPv6 address"),
        ("reject: strangers", "reject: strangrs", "5:22: no rule is called “strangrs may not relay through us”"),
        ("score: -2", "score: x", "unknown fact `x`"),
        ("expect: {accept", "expcet: {accept", "8:5: unknown key `expcet`. Did you mean `expect`?"),
        ("tests:", "test:", "2:1: unknown key `test`"),
        ("[example.org]", "[ex ample]", "1:10:"),
    ],
)
def test_a_wrong_case_is_refused_at_its_place(cli: Cli, folder: Path, old: str, new: str, message: str) -> None:
    (folder / "tests" / "relay.yaml").write_text(CASES.replace(old, new))
    assert message in cli("policy", "test", str(folder)).expect(1).stderr


def test_a_failing_case_shows_what_came_and_its_trail(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (folder / "tests" / "relay.yaml").write_text(CASES.replace("b@example.com}\n", "b@example.org}\n"))
    result = cli("policy", "test", str(folder), "--junit", str(tmp_path / "junit.xml")).expect(1)
    assert "FAILED policies/tests/relay.yaml:3: a stranger cannot relay" in result.stdout
    assert "expected reject by “strangers may not relay through us”, got accept (no rule decided)" in result.stdout
    assert "no match    reject “strangers may not relay through us”   recipient.is_local = true" in result.stdout
    assert "1 passed, 1 failed" in result.stdout
    suite = ET.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [case.find("failure") is not None for case in suite] == [True, False]


def test_explain_tries_each_rule_and_names_the_winner(cli: Cli, folder: Path) -> None:
    out = (
        cli(
            "policy",
            "explain",
            str(folder),
            "--from",
            "x@friend.example",
            "--to",
            "y@else.example",
            "--client-ip",
            "2001:db8::1",
        )
        .expect(0)
        .stdout
    )
    assert 'MATCH       note “friends”   sender.domain = "friend.example"' in out
    assert "gave score -2, mark friend" in out
    assert "answers 554 5.7.1 <y@else.example>: relay access denied [" in out
    assert out.rstrip().endswith("outcome: reject by “strangers may not relay through us”")


def test_explain_takes_any_fact_and_a_message(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (folder / "50-message.yaml").write_text(
        "stage: message\nrules:\n  - hold: big or odd\n    when: message.subject == 'odd' and recipient.exists\n"
    )
    message = tmp_path / "x.eml"
    message.write_bytes(b"Subject: odd\n\nx\n")
    options = ("policy", "explain", str(folder), "--to", "a@x.example", "--set", "client.trusted=true")
    assert "outcome: hold by “big or odd”" in cli(*options, "--message", str(message)).expect(0).stdout
    unknown = cli(*options, "--message", str(message), "--set", "recipient.exists=unknown").expect(0).stdout
    assert "unknown     hold “big or odd”" in unknown
    assert unknown.rstrip().endswith("outcome: defer by “big or odd”")
    assert "client.prt: unknown fact" in cli(*options, "--set", "client.prt=1").expect(2).stderr
    assert "write FACT=VALUE" in cli(*options, "--set", "client.port").expect(2).stderr


def test_facts_and_schemas_know_the_whole_catalogue(cli: Cli) -> None:
    rows = json.loads(cli("policy", "facts", "--json").expect(0).stdout)
    names = {row["name"] for row in rows}
    assert {"client.ip", "score", 'header("…")', "matches(…)"} <= names
    schema = json.loads(cli("policy", "schema").expect(0).stdout)
    assert {"quarantine", "when", "do"} <= set(schema["properties"]["rules"]["items"]["properties"])
    cases = json.loads(cli("policy", "schema", "--tests").expect(0).stdout)
    assert "client.ip" in cases["anyOf"][0]["items"]["properties"]["given"]["properties"]


def test_a_policy_whose_tests_fail_is_not_applied(cli: Cli, folder: Path) -> None:
    (folder / "tests" / "relay.yaml").write_text(CASES.replace("-2}", "-3}"))
    (cli.folder / "policies").rename(cli.folder / "shipped")
    folder.rename(cli.folder / "policies")
    assert "test “friends are marked”: expected score -3, got -2" in cli("check").expect(1).stderr
    assert "test “friends are marked”" in cli("run").expect(1).stderr
