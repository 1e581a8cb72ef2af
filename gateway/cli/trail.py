"""How a rehearsed policy run is shown: each rule tried, with the facts that it looked at."""

import json
from collections.abc import Iterator

from gateway.cli.context import printable
from gateway.content.attachment import Attachment
from gateway.core.verdict import Decision, Matched
from gateway.policy.rehearsal import Rehearsal
from gateway.policy.rules import Policy
from gateway.policy.values import UNKNOWN

_SAID = {
    Matched.NO: "no match",
    Matched.YES: "MATCH",
    Matched.UNKNOWN: "unknown",
    Matched.WOULD: "would match",
}


def trail_of(found: Policy, rehearsal: Rehearsal) -> Iterator[str]:
    """Each rule tried, with the facts that it looked at."""
    rules = {rule.name: rule for stage in found.rules.values() for rule in stage}
    for decision in rehearsal.decisions:
        by = f" by “{decision.verdict.rule}”" if decision.verdict.rule else " (no rule decided)"
        yield f"{decision.stage}: {decision.verdict.action}{by}"
        for step in decision.trail:
            condition = rules[step.rule].condition
            keys = condition.facts if condition else ()
            facts = ", ".join(f"{key} = {_shown(decision.facts[key])}" for key in keys if key in decision.facts)
            yield f"  {_SAID[step.matched]:11} {step.action} “{step.rule}”" + (f"   {facts}" if facts else "")
        yield from _gave(decision)


def _gave(decision: Decision) -> Iterator[str]:
    given_here = [f"score {decision.score:+g}"] if decision.score else []
    given_here += [f"mark {mark}" for mark in decision.marks] + [str(effect) for effect in decision.effects]
    if given_here:
        yield f"  gave {', '.join(given_here)}"
    if decision.verdict.reply is not None:
        yield f"  answers {printable(decision.verdict.reply)}"


def _shown(value: object) -> str:
    if value is UNKNOWN:
        return "unknown"
    return printable(json.dumps(value, ensure_ascii=False, default=Attachment.told))
