"""A second policy beside the live one, on real traffic: what would it have said?

It sees the facts that the live policy has fetched, and may have a few look-ups of its own. It has its own scores and
marks, changes nothing, is never waited for by a rule's delay, and whatever happens in it the live answer stands.
"""

import asyncio

from gateway.core.transaction import Recipient
from gateway.core.verdict import Decision, Delay, Effect, ShadowVerdict, Stage, Verdict
from gateway.policy.catalogue import SCAN, STATE, WAIT
from gateway.policy.context import ORDER, Context, Layer, Need, layers_from, new_layers
from gateway.policy.engine import judge
from gateway.policy.rules import Policy
from gateway.policy.values import Found
from gateway.servers.facts import FactSource
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics

MAX_GROUPS = 50  # recipients of a message that are judged apart
RUN_S = 5.0  # of one run with its look-ups

_log = log.get("shadow")


class Undecided(Exception):
    """The live policy did not fetch a fact, and no look-up is left; its key is the argument."""


class Shadow:
    """For one session. live_facts: those that the live policy may ask for; lookups: how many of its own in a
    transaction.
    """

    def __init__(
        self, policy: Policy, live_facts: frozenset[str], source: FactSource, lookups: int, metrics: Metrics
    ) -> None:
        self._policy = policy
        self._live_facts = live_facts
        self._source = source
        self._lookups = self._left = lookups
        self._metrics = metrics
        self._layers = new_layers()
        self._over: Stage | None = None  # one of the two has refused here: until a new scope nothing is compared
        self._tried: Layer | None = None  # of the recipient that was judged last, None where it was refused
        self._recipients: list[Layer | None] = []

    # --- what a new command outdates, as in the live judge --------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        self._layers = layers_from(self._layers, stage)
        self._recipients = []
        self._left = self._lookups
        if self._over is not None and ORDER[stage] <= ORDER[self._over]:
            self._over = None

    def begin_again(self) -> None:
        self.begin(Stage.CONNECT)

    def keep_recipient(self) -> None:
        self._recipients.append(self._tried)

    # --- stages ---------------------------------------------------------------------------------------------------

    async def stage(self, context: Context, live: Decision) -> Decision:
        """The live decision of connect, helo or sender, with what the shadow says if that is something else."""
        if self._over is not None:
            return live
        decision = await self._run(live.stage, context, self._layers)
        if live.verdict.refuses or decision is None or _refuses(decision):
            self._over = live.stage
        return self._compared(live, decision)

    async def recipient(self, context: Context, live: Decision) -> Decision:
        self._tried = None
        if self._over is not None:
            return live
        layers = layers_from(self._layers, Stage.RECIPIENT)
        decision = await self._run(live.stage, context, layers)
        if decision is not None and not _refuses(decision):
            self._tried = layers[ORDER[Stage.RECIPIENT]]
        return self._compared(live, decision)

    async def message(
        self, recipients: tuple[Recipient, ...], lived: dict[int, tuple[Decision, Context]]
    ) -> dict[int, ShadowVerdict]:
        """lived: the live decision for each recipient, and what it was taken on. Returns what differs."""
        found: dict[int, ShadowVerdict] = {}
        seen: dict[object, ShadowVerdict | None] = {}
        for number, recipient in enumerate(recipients):
            layer = self._recipients[number] if number < len(self._recipients) else None
            if self._over is not None or layer is None or number not in lived:
                continue
            live, context = lived[number]
            is_alike = not self._policy.recipient_facts_at_message
            key = (id(live), layer.score, layer.marks, None if is_alike else number)
            if key not in seen:
                if len(seen) >= MAX_GROUPS:
                    break
                own = context.anew(recipient=recipient.forward_path)
                layers = (*self._layers[:3], layer, Layer())
                decision = await self._run(Stage.MESSAGE, own, layers)
                seen[key] = self._difference(live, decision or self._undecided)
            difference = seen[key]
            if difference is not None:
                found[number] = difference
        return found

    # --- one run --------------------------------------------------------------------------------------------------

    _undecided = ShadowVerdict("undecided", "")

    async def _run(self, stage: Stage, context: Context, layers: tuple[Layer, ...]) -> Decision | None:
        """None where it hangs on a fact that is not at hand. context: the live policy's, with what it has fetched."""
        own = context.anew(layers=layers)
        judgement = judge(self._policy, stage, own)
        try:
            async with asyncio.timeout(RUN_S):
                need = next(judgement)
                while True:
                    need = judgement.send(await self._find(need, own, context))
        except StopIteration as done:
            decision: Decision = done.value
            return decision
        except TimeoutError:
            self._undecided = ShadowVerdict("undecided", "time")
        except Undecided as error:
            self._undecided = ShadowVerdict("undecided", str(error.args[0]))
        except Exception as error:
            self._undecided = ShadowVerdict("undecided", "")
            _log.error("shadow policy failed", session=context.session.id, stage=stage, exc_info=error)
        return None

    async def _find(self, need: Need, own: Context, live: Context) -> Found:
        known = live.layers[ORDER[need.stage]].known
        if need.key in known:
            return known[need.key]
        # What the live policy does not ask for nobody counts, and a client waits for one policy only.
        is_idle = need.cost == STATE and need.key not in self._live_facts
        if self._left <= 0 or is_idle or need.cost in (WAIT, SCAN):
            raise Undecided(need.key)
        self._left -= 1
        return await self._source.fetch(need, own)

    def _compared(self, live: Decision, decision: Decision | None) -> Decision:
        difference = self._difference(live, decision or self._undecided)
        return live if difference is None else live.beside(difference)

    def _difference(self, live: Decision, found: Decision | ShadowVerdict) -> ShadowVerdict | None:
        if isinstance(found, Decision):
            same = found.verdict.action is live.verdict.action and _lasting(found.effects) == _lasting(live.effects)
            if same:
                return None
            found = ShadowVerdict(found.verdict.action.value, found.verdict.rule)
        labels = (live.stage, live.verdict.action, found.action)
        self._metrics.shadow_differences.labels(*labels).inc()
        return found


def _refuses(decision: Decision) -> bool:
    verdict: Verdict = decision.verdict
    return verdict.refuses


def _lasting(effects: tuple[Effect, ...]) -> list[Effect]:
    return [effect for effect in effects if not isinstance(effect, Delay)]
