"""Lints: rules that can never do anything, lists that nobody uses, a policy that looks like an open relay."""

from collections.abc import Iterator, Mapping

from gateway.core.verdict import Action, Stage
from gateway.policy.lists import NamedList
from gateway.policy.rules import Rule

_ASKS_WHO = ("client.trusted", "client.ip", "auth.", "recipient.", "session.direction")


def lint(rules: Mapping[Stage, tuple[Rule, ...]], lists: Mapping[str, NamedList]) -> Iterator[str]:
    used: set[str] = set()
    for stage, found in rules.items():
        ended_by: Rule | None = None
        for rule in found:
            if ended_by is not None:
                yield f"{rule.place}: `{rule.name}` can never be reached: `{ended_by.name}` always decides {stage}"
            decides = rule.action is not Action.NOTE and not rule.is_monitor
            if rule.condition is None or rule.condition.constant is True:
                ended_by = ended_by or (rule if decides else None)
            elif rule.condition.constant is False:
                yield f"{rule.place}: `{rule.name}` can never match"
            used.update(rule.condition.lists if rule.condition else ())
    yield from _open_relays(rules[Stage.RECIPIENT])
    for name, unused in lists.items():
        if name not in used:
            yield f"{unused.path.parent.name}/{unused.path.name}: no rule uses this list"


def _open_relays(rules: tuple[Rule, ...]) -> Iterator[str]:
    """An accept at recipient that asks neither who sends nor where to, before strangers were refused."""
    for rule in rules:
        facts = rule.condition.facts if rule.condition else ()
        if rule.is_monitor:
            continue
        if rule.action is Action.REJECT and {"recipient.is_local", "recipient.is_relayed"} & set(facts):
            return
        if rule.action is Action.ACCEPT and not any(fact.startswith(_ASKS_WHO) for fact in facts):
            yield f"{rule.place}: `{rule.name}` would accept strangers' mail for anybody; the relay guard refuses it"
