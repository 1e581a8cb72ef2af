"""The examples that the documents show are run: policies load, cases hold, errors read as printed."""

import re
import textwrap
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.policy.cases import run_cases
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import Surroundings
from tests.support.policies import write_policy

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
ERRORS = re.findall(r"^    (policies/\S+:(\d+):(\d+): .*)\n    (.*)\n(?:    ( *\^+)\n)?", TEXT, re.MULTILINE)
# What the cases in the document are about: the rules that it shows, and a friend.
FRIENDS = """\
stage: sender
rules:
  - note: friends
    when: sender.domain == "friend.example" and not dnsbl("zen.example.net", "127.0.0.9")
    do: {mark: friend, score: -2}
"""


def as_file(block: str) -> str:
    """Rules alone belong to the message stage, where all facts are known."""
    return block if block.startswith("stage:") else f"stage: message\nrules:\n{textwrap.indent(block, '')}"


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3
    assert len(ERRORS) >= 1


@pytest.mark.parametrize("block", [block for block in BLOCKS if "tests:" not in block])
def test_a_policy_that_is_shown_loads(tmp_path: Path, block: str) -> None:
    assert load_policy(write_policy(tmp_path, {"40-x.yaml": as_file(block)})).warnings == ()


@pytest.mark.parametrize("block", [block for block in BLOCKS if "tests:" in block])
def test_cases_that_are_shown_hold(tmp_path: Path, block: str) -> None:
    rules = next(shown for shown in BLOCKS if "strangers may not relay" in shown and "tests:" not in shown)
    folder = write_policy(tmp_path, {"30-f.yaml": FRIENDS, "40-r.yaml": rules, "tests/shown.yaml": block})
    results = run_cases(folder, load_policy(folder), Surroundings())
    assert len(results) == block.count("- test:")
    assert [str(result) for result in results if result.failure] == []


@pytest.mark.parametrize(("whole", "line", "column", "source", "caret"), ERRORS)
def test_an_error_reads_as_it_is_shown(
    tmp_path: Path, whole: str, line: str, column: str, source: str, caret: str
) -> None:
    """The line shown is put at its place in a file; what comes before it is of no matter."""
    name = whole.partition("/")[2].partition(":")[0]
    before = ["stage: recipient", "rules:", *["  # a comment"] * (int(line) - 4), "  - accept: friends"]
    text = "\n".join([*before, f"{' ' * (int(column) - 1 - (len(caret) - len(caret.lstrip())))}{source}", ""])
    folder = write_policy(tmp_path, {name: text, "lists/friends.domains": "friend.example\n"})
    with pytest.raises(ConfigError) as caught:
        load_policy(folder)
    said = str(caught.value)
    assert whole in said
    assert source.strip() in said
    assert caret.strip() in said


SPECIFICATION = {
    "10-rules.yaml": """\
stage: recipient
rules:
  - accept: own networks and signed-in users
    when: client.trusted or auth.user

  - reject: strangers may not relay through us
    when: not (recipient.is_local or recipient.is_relayed)
    reply: 554 5.7.1 <{recipient.address}>: relay access denied

  - reject: listed by two blocklists
    when: dnsbl("zen.spamhaus.org") and dnsbl("bl.spamcop.net")
    reply: 550 5.7.1 {client.ip} is on a blocklist

  - defer: newcomers wait five minutes
    when: greylist.state in ["new", "waiting"] and not client.name

  - note: odd HELO
    when: helo.name != client.name
    do: {score: 1.5}
""",
    "tests/spec.yaml": """\
- test: a stranger cannot relay
  domains: [example.org]
  given: {client.ip: 203.0.113.7, sender.address: a@example.net, recipient.address: b@example.com}
  expect: {reject: strangers may not relay through us}
- test: two lists refuse
  domains: [example.org]
  given:
    dnsbl("zen.spamhaus.org"): [127.0.0.2]
    dnsbl("bl.spamcop.net"): [127.0.0.2]
    client.ip: 203.0.113.7
    recipient.address: b@example.org
  expect: {reject: listed by two blocklists, reply: 203.0.113.7 is on a blocklist}
- test: one of them does not
  domains: [example.org]
  given:
    dnsbl("zen.spamhaus.org"): [127.0.0.2]
    dnsbl("bl.spamcop.net"): unknown
    client.ip: 203.0.113.7
    client.name: mail.sender.example
    recipient.address: b@example.org
  expect: {accept: none, score: 0}
- test: newcomers wait
  domains: [example.org]
  given: {greylist.state: new, recipient.address: b@example.org}
  expect: {defer: newcomers wait five minutes}
""",
}


def test_the_language_as_it_was_laid_out(tmp_path: Path) -> None:
    folder = write_policy(tmp_path, SPECIFICATION)
    results = run_cases(folder, load_policy(folder), Surroundings())
    assert [str(result) for result in results if result.failure] == []
    assert len(results) == 4
