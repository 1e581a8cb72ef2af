"""The engine: rules of one stage in order, the first that decides ends it; `note` and monitor rules never do.

Pure: a Context in, a Decision out. `judge` is a generator: it yields each fact that an answer hangs on and is sent what
was found, so that the driver may wait, a test may know, and a replay may remember. The guards are not here: they hold
whatever the rules say.
"""

from collections.abc import Callable, Generator
from typing import TypeVar

from gateway.core.ident import new_id
from gateway.core.reply import Reply, reply
from gateway.core.verdict import ACCEPTED, DISPOSING, REFUSING, Action, Decision, Effect, Matched, Stage, Step, Verdict
from gateway.policy.catalogue import declared
from gateway.policy.context import ORDER, Context, Disposition, Layer, Need
from gateway.policy.rules import STRICTNESS, OnUnknown, Policy, Rule
from gateway.policy.values import PENDING, UNKNOWN, Found, Mark

T = TypeVar("T")
Judgement = Generator[Need, Found, Decision]

_DEFAULT = {Action.REJECT: (550, "5.7.1"), Action.DEFER: (450, "4.7.1")}
UNDECIDED = reply(451, "4.7.1", "A check could not be completed; try again later")


def judge(policy: Policy, stage: Stage, context: Context, *, full: bool = False) -> Judgement:
    """full: the trail holds each rule tried. Score, marks, effects and disposition go into the stage's layer too."""
    run = _Run(policy, stage, context, full)
    return (yield from run.rules())


def decide(
    policy: Policy,
    stage: Stage,
    context: Context,
    fetch: Callable[[Need], Found] = lambda need: UNKNOWN,
    *,
    full: bool = False,
) -> Decision:
    """`judge` where facts are at hand: each need is answered at once."""
    judgement = judge(policy, stage, context, full=full)
    try:
        need = next(judgement)
        while True:
            need = judgement.send(fetch(need))
    except StopIteration as done:
        decision: Decision = done.value
        return decision


class _Run:
    def __init__(self, policy: Policy, stage: Stage, context: Context, full: bool) -> None:
        self.policy = policy
        self.stage = stage
        self.context = context
        self.full = full
        self.layer: Layer = context.layers[ORDER[stage]]
        self.trail: list[Step] = []
        self.effects: list[Effect] = []
        self.score = 0.0
        self.marks: list[str] = []

    def rules(self) -> Judgement:
        context, full, trail = self.context, self.full, self.trail
        postponed: Rule | None = None
        for rule in self.policy.rules[self.stage]:
            condition = rule.condition
            if condition is not None:
                test = condition.test
                context.unknown.clear()
                found = test(context)
                if found is PENDING:
                    found = yield from self._learn(test)
                if not found:  # a mark is true
                    if full:
                        trail.append(Step(rule.name, rule.action, Matched.NO))
                    continue
                if found is UNKNOWN:
                    trail.append(Step(rule.name, rule.action, Matched.UNKNOWN))
                    way = self._when_unknown(rule)
                    if way is OnUnknown.DEFER and not rule.is_monitor:
                        postponed = postponed or rule
                    if way is not OnUnknown.MATCH:
                        continue
            trail.append(Step(rule.name, rule.action, Matched.WOULD if rule.is_monitor else Matched.YES))
            if rule.is_monitor:
                continue
            if (yield from self._apply(rule)):
                postponed = postponed or rule
            if rule.action is not Action.NOTE:
                return (yield from self._decided(rule, postponed))
        if postponed is None:
            return self._decision(ACCEPTED)
        decision_id = new_id()
        return self._decision(_undecided(postponed, decision_id), decision_id)

    def _learn(self, ask: Callable[[Context], T]) -> Generator[Need, Found, T]:
        """Fetch what the answer hangs on, cheapest first, until it hangs on nothing that can be fetched."""
        pending = self.context.pending
        while (found := ask(self.context)) is PENDING:
            need = min(pending, key=lambda each: each.cost)
            self.context.put(need, (yield need))
            pending.clear()
            self.context.unknown.clear()
        pending.clear()
        return found

    def _when_unknown(self, rule: Rule) -> OnUnknown:
        if rule.on_unknown is not None:
            return rule.on_unknown
        ways = {self._on_error(key) for key in self.context.unknown}
        if rule.action not in REFUSING:
            ways.discard(OnUnknown.MATCH)  # a check's failure refuses, it never lets in
        return max(ways, key=STRICTNESS.index, default=OnUnknown.SKIP)

    def _on_error(self, key: str) -> OnUnknown:
        found = declared(key)
        return self.policy.on_error.get(found.provider if found else "", OnUnknown.SKIP)

    def _apply(self, rule: Rule) -> Generator[Need, Found, bool]:
        """True: an effect that must not be left out hangs on a fact that could not be learnt."""
        if rule.score is not None:
            points = yield from self._learn(rule.score.value)
            if isinstance(points, int | float):
                self.score += points
                self.layer.score += points
        if rule.marks:
            self.marks += rule.marks
            self.layer.marks += rule.marks
        is_lacking = False
        for template in rule.effects:
            effect: Effect | Mark | None = yield from self._learn(template.fill)
            if isinstance(effect, Mark):
                is_lacking |= template.is_needed
            elif effect is not None:
                self.effects.append(effect)
                self.layer.effects += (effect,)
        return is_lacking

    def _decided(self, rule: Rule, postponed: Rule | None) -> Judgement:
        if rule.action in REFUSING:
            decision_id = new_id()
            answer = Reply(*_DEFAULT[rule.action], (rule.name,))
            if rule.reply is not None:
                filled = yield from self._learn(rule.reply.fill)
                answer = filled if isinstance(filled, Reply) else answer
            return self._decision(Verdict(rule.action, rule.name, answer.with_id(decision_id)), decision_id)
        if postponed is not None:
            decision_id = new_id()
            return self._decision(_undecided(postponed, decision_id), decision_id)
        if rule.action in DISPOSING:
            is_self_released = any(effect.key == "self_release" for effect in rule.effects)
            self.layer.disposition = Disposition(rule.action, rule.name, is_self_released)
            return self._decision(Verdict(rule.action, rule.name), new_id())
        return self._decision(Verdict(rule.action, rule.name))

    def _decision(self, verdict: Verdict, decision_id: str = "") -> Decision:
        return Decision(
            decision_id,
            self.stage,
            verdict,
            tuple(self.trail),
            self.context.seen,
            tuple(self.effects),
            self.score,
            tuple(self.marks),
        )


def _undecided(rule: Rule, decision_id: str) -> Verdict:
    return Verdict(Action.DEFER, rule.name, UNDECIDED.with_id(decision_id))
