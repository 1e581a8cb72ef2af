"""The engine: rules of one stage in order, the first that matches decides.

Pure: a Context in, a Decision out. The relay guard and the other guards are not here: they hold whatever the rules say.
"""

from gateway.core.ident import new_id
from gateway.core.reply import Reply, reply
from gateway.core.verdict import ACCEPTED, Action, Decision, Stage, Step, Verdict
from gateway.policy.catalogue import Context
from gateway.policy.rules import Policy, Rule

_DEFAULT = {Action.REJECT: (550, "5.7.1"), Action.DEFER: (450, "4.7.1")}


def decide(policy: Policy, stage: Stage, context: Context) -> Decision:
    """Each rule's condition until one matches. The decision carries the trail, and its reply the decision's id."""
    steps: list[Step] = []
    for rule in policy.rules[stage]:
        matched = rule.condition is None or rule.condition.test(context)
        names = rule.condition.facts if rule.condition else ()
        memo = context.memo
        steps.append(Step(rule.name, matched, tuple((name, memo[name]) for name in names if name in memo)))
        if matched:
            # Only a refusal is ever asked about by its id.
            decision_id = "" if rule.action is Action.ACCEPT else new_id()
            return Decision(decision_id, stage, _verdict(rule, context, decision_id), tuple(steps))
    return Decision("", stage, ACCEPTED, tuple(steps))


def _verdict(rule: Rule, context: Context, decision_id: str) -> Verdict:
    if rule.action is Action.ACCEPT:
        return Verdict(rule.action, rule.name)
    return Verdict(rule.action, rule.name, _reply(rule, context).with_id(decision_id))


def _reply(rule: Rule, context: Context) -> Reply:
    if rule.reply is not None:
        return rule.reply.fill(context)
    code, status = _DEFAULT[rule.action]
    return reply(code, status, rule.name)
