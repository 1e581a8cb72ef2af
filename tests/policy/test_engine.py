"""The engine: first match wins, the trail, replies with ids; and what the shipped policies decide."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.ident import LENGTH
from gateway.core.transaction import Session
from gateway.core.verdict import Action, Matched, Stage, Step
from gateway.policy.context import Context
from gateway.policy.engine import decide
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import neutral
from gateway.policy.rules import Policy
from tests.support.policies import OWN, STRANGER, USER, context, policy_of

SHIPPED = Path(__file__).resolve().parents[2] / "policies"


def policy(folder: Path, rules: str) -> Policy:
    return policy_of(folder, {"a.yaml": "stage: connect\nrules:\n" + rules})


def test_the_first_rule_that_matches_decides_and_later_ones_are_not_looked_at(tmp_path: Path) -> None:
    rules = (
        "  - reject: a\n    when: client.port == 1\n  - defer: b\n    when: client.ip == '203.0.113.7'\n"
        "    reply: 451 4.7.1 wait {client.ip}\n  - accept: c\n    when: auth.user\n"
    )
    decision = decide(policy(tmp_path, rules), Stage.CONNECT, context())
    assert (decision.verdict.action, decision.verdict.rule) == (Action.DEFER, "b")
    assert decision.trail == (Step("b", Action.DEFER, Matched.YES),)
    assert decision.facts == {"client.port": 40000, "client.ip": "203.0.113.7"}
    full = decide(policy(tmp_path, rules), Stage.CONNECT, context(), full=True)
    assert [(step.rule, step.matched) for step in full.trail] == [("a", Matched.NO), ("b", Matched.YES)]
    assert len(decision.id) == LENGTH
    assert str(decision.verdict.reply) == f"451 4.7.1 wait 203.0.113.7 [{decision.id}]"


def test_a_stage_without_a_matching_rule_is_accepted(tmp_path: Path) -> None:
    decision = decide(policy(tmp_path, "  - reject: a\n    when: auth.user\n"), Stage.CONNECT, context())
    assert (decision.verdict.action, decision.verdict.rule, decision.verdict.reply) == (Action.ACCEPT, "", None)
    assert decision.trail == ()
    assert decide(policy(tmp_path, "  - reject: a\n"), Stage.HELO, context()).trail == ()


def test_an_accepting_rule_has_no_reply(tmp_path: Path) -> None:
    decision = decide(policy(tmp_path, "  - accept: everybody\n"), Stage.CONNECT, context())
    assert (decision.verdict.rule, decision.verdict.reply, decision.verdict.refuses) == ("everybody", None, False)


@pytest.mark.parametrize(("action", "start"), [("reject", "550 5.7.1 tiré ["), ("defer", "450 4.7.1 tiré [")])
def test_without_a_reply_the_rule_s_name_is_the_text(tmp_path: Path, action: str, start: str) -> None:
    decision = decide(policy(tmp_path, f"  - {action}: tiré\n"), Stage.CONNECT, context())
    assert str(decision.verdict.reply).startswith(start)
    assert decision.verdict.reply is not None
    assert b"tir? [" in decision.verdict.reply.render()


@pytest.fixture(scope="module")
def shipped() -> Policy:
    return load_policy(SHIPPED)


def test_the_shipped_policy_has_no_warnings_and_a_rule_for_each_stage(shipped: Policy) -> None:
    unused = [warning for warning in shipped.warnings if "no rule uses" in warning]
    assert list(shipped.warnings) == unused == []
    assert all(shipped.rules.values())


def helo(name: str, session: Session = STRANGER) -> Context:
    return context(replace(session, helo=name))


HEADER = b"From: a@b.example\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("stage", "where", "rule", "code"),
    [
        (Stage.CONNECT, context(), "", 0),
        (Stage.CONNECT, context(OWN), "", 0),
        (Stage.HELO, helo("mx.sender.example"), "", 0),
        (Stage.HELO, helo("[203.0.113.7]"), "", 0),
        (Stage.HELO, helo("localhost"), "HELO is no host name", 550),
        (Stage.HELO, helo("203.0.113.7"), "HELO is no host name", 550),
        (Stage.HELO, helo("a..b"), "HELO is no host name", 550),
        (Stage.HELO, helo("[x]"), "HELO is no host name", 550),
        (Stage.HELO, helo("laptop", OWN), "own networks and signed-in users may greet as they like", 0),
        (Stage.HELO, helo("laptop", replace(STRANGER, listener="submission")), "", 0),
        (Stage.HELO, helo("laptop", USER), "own networks and signed-in users may greet as they like", 0),
        (Stage.SENDER, context(sender=""), "", 0),
        (Stage.SENDER, context(sender="a@b.example"), "", 0),
        (Stage.RECIPIENT, context(sender="", recipient="alice@example.org"), "", 0),
        (Stage.RECIPIENT, context(sender="", recipient="nobody@example.org"), "no such mailbox", 550),
        (Stage.RECIPIENT, context(OWN, sender="", recipient="nobody@example.org"), "no such mailbox", 550),
        (Stage.RECIPIENT, context(USER, sender="", recipient="nobody@example.org"), "no such mailbox", 550),
        (Stage.RECIPIENT, context(sender="", recipient="x@partner.example"), "", 0),
        (
            Stage.RECIPIENT,
            context(sender="", recipient="x@elsewhere.example"),
            "strangers may not relay through us",
            554,
        ),
        (
            Stage.RECIPIENT,
            context(sender="a@example.org", recipient="x@elsewhere.example"),
            "strangers may not relay through us",
            554,
        ),
        (Stage.RECIPIENT, context(sender="", recipient="x@sub.example.org"), "strangers may not relay through us", 554),
        (
            Stage.RECIPIENT,
            context(OWN, sender="", recipient="x@elsewhere.example"),
            "own networks and signed-in users",
            0,
        ),
        (
            Stage.RECIPIENT,
            context(USER, sender="", recipient="x@elsewhere.example"),
            "own networks and signed-in users",
            0,
        ),
        (Stage.MESSAGE, context(sender="", message=HEADER), "", 0),
        (Stage.MESSAGE, context(sender="", message=b"\r\nbody\r\n"), "the header is broken", 550),
        (
            Stage.MESSAGE,
            context(OWN, sender="", message=b"\r\nbody\r\n"),
            "content from own networks and signed-in users",
            0,
        ),
    ],
)
def test_the_shipped_policy_decides_like_a_careful_postmaster(
    shipped: Policy, stage: Stage, where: Context, rule: str, code: int
) -> None:
    verdict = decide(shipped, stage, where, neutral).verdict
    assert (verdict.rule, 0 if verdict.reply is None else verdict.reply.code) == (rule, code)


@pytest.mark.parametrize(
    ("name", "entry", "stage", "where", "rule"),
    [
        ("blocked_networks.networks", "203.0.113.0/24", Stage.CONNECT, context(), "blocked networks"),
        ("blocked_networks.networks", "127.0.0.0/8", Stage.CONNECT, context(OWN), ""),
        ("blocked_networks.networks", "203.0.113.0/24", Stage.CONNECT, context(USER), ""),
        ("blocked_domains.domains", ".bad.example", Stage.SENDER, context(sender="x@a.BAD.example"), "blocked senders"),
        ("blocked_domains.domains", ".bad.example", Stage.SENDER, context(sender=""), ""),
        (
            "blocked_senders.addresses",
            "x@bad.example",
            Stage.SENDER,
            context(sender="X@bad.example"),
            "blocked senders",
        ),
        ("blocked_senders.addresses", "x@bad.example", Stage.SENDER, context(sender="y@bad.example"), ""),
    ],
)
def test_the_shipped_lists_block_what_is_written_into_them(
    tmp_path: Path, name: str, entry: str, stage: Stage, where: Context, rule: str
) -> None:
    files: dict[str, str | bytes] = {path.name: path.read_bytes() for path in SHIPPED.glob("*.yaml")}
    files |= {f"lists/{path.name}": path.read_bytes() for path in (SHIPPED / "lists").iterdir()}
    files[f"lists/{name}"] = entry + "\n"
    assert decide(policy_of(tmp_path, files), stage, where).verdict.rule == rule
