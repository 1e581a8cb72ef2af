"""The policy's side of one SMTP session: runs the stages, fetches what they ask for, keeps what rules gave.

A message is judged once for each group of recipients that its rules can tell apart. What comes out for a message is a
refusal, or parts: recipients that are handled alike.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.reply import Reply
from gateway.core.transaction import Recipient
from gateway.core.verdict import Action, Decision, Delay, Matched, Stage, Verdict
from gateway.policy.catalogue import FACTS, of_recipient
from gateway.policy.context import ORDER, Context, Layer, layers_from, new_layers
from gateway.policy.effects import MAX_DELAY_S
from gateway.policy.engine import judge
from gateway.policy.rules import Policy
from gateway.policy.values import PENDING, Found
from gateway.queue.handling import Handling, Part
from gateway.servers.facts import FactSource
from gateway.servers.smtp_shadow import Shadow
from gateway.telemetry.metrics import Metrics


@dataclass(slots=True)
class Judged:
    """What the message stage came to. decisions: each with the numbers of its recipients, and what it saw."""

    decisions: list[tuple[Decision, tuple[int, ...], Context | None]]
    refusal: Reply | None
    parts: tuple[Part, ...]

    @property
    def is_rejected(self) -> bool:
        """By rules, for good, for all."""
        ours = [decision for decision, _, seen in self.decisions if seen is not None]
        return bool(ours) and all(decision.verdict.action is Action.REJECT for decision in ours)


class SessionJudge:
    """One policy version from the first stage to the end."""

    def __init__(self, policy: Policy, source: FactSource, metrics: Metrics, shadow: Shadow | None = None) -> None:
        self.policy = policy
        self._source = source
        self._metrics = metrics
        self._shadow = shadow
        self.layers = new_layers()
        self._recipients: list[Layer] = []

    # --- what a new command outdates ------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        """A new HELO or MAIL: what was learnt and given from this stage on is gone."""
        self.layers = layers_from(self.layers, stage)
        self._recipients = []
        if self._shadow is not None:
            self._shadow.begin(stage)

    def begin_again(self) -> None:
        """After AUTH connect and helo are judged anew; what was learnt of the client stays true."""
        self.layers = (Layer(self.layers[0].known, self.layers[0].learnt), *new_layers()[1:])
        self._recipients = []
        if self._shadow is not None:
            self._shadow.begin_again()

    # --- stages ---------------------------------------------------------------------------------------------------

    async def decide(self, stage: Stage, context: Context, *, waits: bool = True) -> Decision:
        """Of connect, helo or sender. waits: as long as its rules ask."""
        decision = await self._counted(stage, context)
        if self._shadow is not None:
            decision = await self._shadow.stage(context, decision)
        await _wait([decision] if waits else [])
        return decision

    async def _counted(self, stage: Stage, context: Context) -> Decision:
        decision, seconds = await self._judge(stage, context)
        self._metrics.stage_seconds.labels(stage).observe(seconds)
        for step in decision.trail:
            if step.matched in (Matched.YES, Matched.WOULD):
                mode = "monitor" if step.matched is Matched.WOULD else "enforce"
                self._metrics.rule_hits.labels(stage, step.rule, step.action, mode).inc()
        return decision

    async def _judge(self, stage: Stage, context: Context) -> tuple[Decision, float]:
        """The decision, and the time it took."""
        started = time.perf_counter()
        judgement = judge(self.policy, stage, context)
        try:
            need = next(judgement)
            while True:
                need = judgement.send(await self._source.fetch(need, context))
        except StopIteration as done:
            return done.value, time.perf_counter() - started

    async def recipient(self, context: Context, *, waits: bool = True) -> Decision:
        """context.layers: its recipient layer is kept when the recipient is accepted (`keep_recipient`)."""
        context.layers = layers_from(self.layers, Stage.RECIPIENT)
        decision = await self._counted(Stage.RECIPIENT, context)
        if self._shadow is not None:
            decision = await self._shadow.recipient(context, decision)
        await _wait([decision] if waits else [])
        return decision

    def keep_recipient(self, context: Context) -> None:
        if self._shadow is not None:
            self._shadow.keep_recipient()
        self._recipients.append(context.layers[ORDER[Stage.RECIPIENT]])

    # --- the message ----------------------------------------------------------------------------------------------

    async def message(
        self, context: Context, recipients: tuple[Recipient, ...], refused: Mapping[int, Decision] | None = None
    ) -> Judged:
        """context: of the message, without a recipient; refused: by number, who was rejected before it."""
        if len(self._recipients) != len(recipients):
            raise RuntimeError("recipients and their layers do not match")
        asked = self.policy.recipient_facts_at_message
        groups: dict[object, list[int]] = {}
        for number, recipient in enumerate(recipients):
            groups.setdefault(self._telling(context, recipient, self._recipients[number], asked), []).append(number)
        shared = Layer()  # what is learnt of the message is learnt once for all groups
        decisions: list[tuple[Decision, tuple[int, ...], Context | None]] = []
        handlings: dict[int, tuple[Decision, Handling]] = {}
        for numbers in groups.values():
            own = self._for_recipient(context, recipients[numbers[0]], self._recipients[numbers[0]])
            own.layers[-1].known = {key: value for key, value in shared.known.items() if not of_recipient(key)}
            own.layers[-1].learnt = dict(shared.learnt)
            decision = await self._counted(Stage.MESSAGE, own)
            shared = own.layers[-1]
            decisions.append((decision, tuple(numbers), own))
            for number in numbers:
                layers = (*self.layers[:3], self._recipients[number], own.layers[-1])
                handlings[number] = ((refused or {}).get(number, decision), _handling(layers))
        await _wait([decision for decision, _, _ in decisions])
        refusal = merged([decision.verdict for decision, _, _ in decisions])
        parts = () if refusal is not None else _parts(recipients, handlings)
        return Judged(decisions, refusal, parts)

    async def beside(self, judged: Judged, recipients: tuple[Recipient, ...]) -> None:
        """Notes with each decision what the shadow policy says of one of its recipients, if that is something else. The
        verdict stands already, and has its own time.
        """
        if self._shadow is None:
            return
        lived = {
            number: (decision, context)
            for decision, numbers, context in judged.decisions
            for number in numbers
            if context is not None
        }
        found = await self._shadow.message(recipients, lived)
        for at, (decision, numbers, context) in enumerate(judged.decisions):
            other = next((found[number] for number in numbers if number in found), None)
            if other is not None:
                judged.decisions[at] = (decision.beside(other), numbers, context)

    def _telling(self, context: Context, recipient: Recipient, layer: Layer, asked: tuple[str, ...]) -> object:
        """What message rules can tell this recipient from others by."""
        given = (layer.score, layer.marks)
        if not asked:
            return given
        own = self._for_recipient(context, recipient, layer)
        values: list[Found] = []
        for key in asked:
            fact = FACTS.get(key)
            if fact is None or fact.read is None:
                return recipient.forward_path  # to be fetched: each is a group of its own
            value = fact.read(own)
            if value is PENDING:
                return recipient.forward_path
            values.append(value)
        return (*given, *values)

    def _for_recipient(self, context: Context, recipient: Recipient, layer: Layer) -> Context:
        return context.anew(recipient=recipient.forward_path, layers=(*self.layers[:3], layer, Layer()))


async def _wait(decisions: list[Decision]) -> None:
    """One answer waits once: as long as the slowest of its decisions asks."""
    delays = [sum(each.seconds for each in one.effects if isinstance(each, Delay)) for one in decisions]
    longest = max(delays, default=0.0)
    if longest:
        await asyncio.sleep(min(longest, MAX_DELAY_S))


def _handling(layers: tuple[Layer, ...]) -> Handling:
    """All effects in the order of the stages; of several dispositions the last stage's counts."""
    effects = tuple(effect for layer in layers for effect in layer.effects if not isinstance(effect, Delay))
    last = next((layer.disposition for layer in reversed(layers) if layer.disposition is not None), None)
    return Handling(effects) if last is None else Handling(effects, last.action, last.rule, last.is_self_released)


def merged(verdicts: list[Verdict]) -> Reply | None:
    """The one reply to the end of data: a deferral of any is a deferral of all, a rejection only when all are."""
    for verdict in verdicts:
        if verdict.action is Action.DEFER:
            return verdict.reply
    if all(verdict.action is Action.REJECT for verdict in verdicts):
        return verdicts[0].reply
    return None


def _parts(recipients: tuple[Recipient, ...], handlings: dict[int, tuple[Decision, Handling]]) -> tuple[Part, ...]:
    """Who is refused beside others accepted gets a quarantined copy: a bounce would tell a forged sender."""
    found: dict[Handling, list[Recipient]] = {}
    for number, recipient in enumerate(recipients):
        decision, handling = handlings[number]
        if decision.verdict.action is Action.REJECT:
            handling = Handling(handling.effects, Action.QUARANTINE, decision.verdict.rule, is_refused=True)
        found.setdefault(handling, []).append(recipient)
    return tuple(Part(tuple(group), handling) for handling, group in found.items())
