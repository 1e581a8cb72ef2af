"""What one SMTP session leaves in the trace: its transactions, each with decisions, trail, reply and queue id."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.reply import Reply
from gateway.core.transaction import Session
from gateway.core.verdict import DISPOSING, Action, Decision, Stage
from gateway.message.header import Header
from gateway.policy.catalogue import DERIVED, FACTS, SCAN, declared, is_varying
from gateway.policy.context import ORDER, Context
from gateway.policy.values import PENDING, UNKNOWN
from gateway.queue.handling import Handling, Part
from gateway.senderauth.results import Authentication
from gateway.telemetry.recorder import Recorder

MAX_NOTES = 500  # decisions and refusals kept of one transaction


@dataclass(frozen=True, slots=True)
class Noted:
    """A decision, the recipients it was for (none before RCPT), and what it was taken on (a guard's: nothing)."""

    decision: Decision
    recipients: tuple[str, ...]
    context: Context | None


@dataclass(slots=True)
class TransactionRecord:
    """One transaction, or what happened in a session outside of any."""

    sender: str | None = None  # None: no MAIL was seen
    recipients: list[str] = field(default_factory=list)
    decisions: list[Noted] = field(default_factory=list)
    refusals: list[tuple[str, Reply, str]] = field(default_factory=list)  # verb, reply, decision id
    message_id: str = ""
    size: int = 0
    through: str = ""  # the hop of ours that brought the client's message
    authentication: Authentication | None = None
    parts: list[dict[str, object]] = field(default_factory=list)  # of an accepted message

    def add_decision(
        self, decision: Decision, recipients: tuple[str, ...] = (), context: Context | None = None
    ) -> None:
        if len(self.decisions) < MAX_NOTES:
            self.decisions.append(Noted(decision, recipients, context))

    def begin_with(self, early: "TransactionRecord") -> None:
        """What was decided of the connection, where no MAIL has brought it here."""
        own = {id(noted.decision) for noted in self.decisions}
        self.decisions = [*(noted for noted in early.decisions if id(noted.decision) not in own), *self.decisions]

    def replace_decision(self, decision: Decision, context: Context | None) -> None:
        """The newest of its stage counts: a client may greet again and again."""
        self.decisions = [other for other in self.decisions if other.decision.stage is not decision.stage]
        self.decisions.append(Noted(decision, (), context))

    def add_refusal(self, verb: str, answer: Reply, decision_id: str) -> None:
        if len(self.refusals) < MAX_NOTES:
            self.refusals.append((verb, answer, decision_id))

    @property
    def is_worth_keeping(self) -> bool:
        return bool(self.recipients or self.refusals or any(each.decision.verdict.refuses for each in self.decisions))

    def write(
        self,
        recorder: Recorder,
        session: Session,
        result: str,
        answer: Reply | None,
        queue_ids: tuple[str, ...] = (),
        policy: str = "",
    ) -> None:
        """policy: the version that judged."""
        ids = [each.decision.id for each in self.decisions if each.decision.id]
        keys = {session.id, *queue_ids, (self.sender or "").lower(), self.message_id, *ids}
        keys.update(recipient.lower() for recipient in self.recipients)
        keys.update(decision_id for _, _, decision_id in self.refusals)
        recorder.record("transaction", tuple(keys), self._data(session, result, answer, queue_ids, policy))

    def _data(
        self, session: Session, result: str, answer: Reply | None, queue_ids: tuple[str, ...], policy: str
    ) -> dict[str, object]:
        told = _Told()
        decisions = [told.decision(each) for each in self.decisions]
        told.note_fetched(self.decisions)
        return {
            "session": session.id,
            "listener": session.listener,
            "client": session.client_ip,
            "port": session.client_port,
            "through": self.through,
            "name": session.client_name,
            "helo": session.helo,
            "esmtp": session.is_esmtp,
            "tls": session.tls.version if session.tls else None,
            "cipher": session.tls.cipher if session.tls else None,
            "user": session.user,
            "method": session.auth_method,
            "trusted": session.is_trusted,
            "sender": self.sender,
            "recipients": self.recipients,
            "facts": told.facts,
            "background": told.background,
            "fetched": told.fetched,
            "policy": policy,
            "decisions": decisions,
            "refusals": [[verb, str(reply), decision_id] for verb, reply, decision_id in self.refusals],
            "result": result,
            "reply": str(answer) if answer is not None else None,
            "queue_id": queue_ids[0] if queue_ids else "",
            "parts": self.parts,
            "authentication": _told_authentication(self.authentication) if self.authentication else None,
            "message_id": self.message_id,
            "size": self.size,
        }


def _told_authentication(found: Authentication) -> dict[str, object]:
    """All that a report of DMARC tells (RFC 9990), whatever the rules asked for."""
    spf, dmarc, record = found.spf, found.dmarc, found.dmarc.record
    return {
        "spf": {"result": spf.result, "domain": spf.domain, "identity": spf.identity},
        "dkim": [{"result": each.result, "domain": each.domain, "selector": each.selector} for each in found.dkim],
        "arc": {"result": found.arc.result, "sealers": list(found.arc.sealers)},
        "dmarc": {
            "result": dmarc.result, "domain": dmarc.domain,
            "policy": dmarc.policy, "policy_domain": dmarc.policy_domain,
            "spf_aligned": dmarc.spf_aligned, "dkim_aligned": dmarc.dkim_aligned,
            "record": None if record is None else {
                "p": record.p, "sp": record.sp, "np": record.np, "adkim": record.adkim, "aspf": record.aspf,
                "testing": record.is_testing, "rua": list(record.rua),
            },
        },
    }  # fmt: skip


class _Told:
    """The facts of a transaction, each once, but for those that differ by stage or recipient, which stand with each
    decision. facts: looked at by rules; background: at hand and asked for by none, so that a candidate policy may;
    fetched: by which check, and how old it was then.
    """

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}
        self.background: dict[str, object] = {}
        self.fetched: dict[str, dict[str, object]] = {}

    def decision(self, noted: Noted) -> dict[str, object]:
        """A decision keeps only what it saw otherwise than those before it (its recipient's, mostly)."""
        decision = noted.decision
        own = self._gather(self.facts, decision.facts)
        found: dict[str, object] = {
            "id": decision.id,
            "stage": decision.stage.value,
            "action": decision.verdict.action.value,
            "rule": decision.verdict.rule,
            "recipients": list(noted.recipients),
            "reply": str(decision.verdict.reply) if decision.verdict.reply else None,
            "trail": [[step.rule, step.action.value, step.matched.value] for step in decision.trail],
        }
        if decision.shadow is not None:
            found["shadow"] = {"action": decision.shadow.action, "rule": decision.shadow.rule}
        if own:
            found["facts"] = own
        if noted.context is not None:
            more = self._gather(self.background, _unasked(decision, noted.context))
            if more:
                found["background"] = more
        if decision.score:
            found["score"] = decision.score
        if decision.marks:
            found["marks"] = decision.marks
        if decision.effects:
            found["effects"] = [str(effect) for effect in decision.effects]
        return found

    @staticmethod
    def _gather(common: dict[str, object], facts: Mapping[str, object]) -> dict[str, object]:
        own: dict[str, object] = {}
        for key, value in facts.items():
            shown = {"unknown": True} if value is UNKNOWN else value
            if is_varying(key) or common.setdefault(key, shown) != shown:
                own[key] = shown
        return own

    def note_fetched(self, decisions: list[Noted]) -> None:
        now = time.time()
        layers = {id(layer): layer for noted in decisions if noted.context for layer in noted.context.layers}
        for layer in layers.values():
            for key, at in layer.learnt.items():
                if key not in self.fetched:
                    fact = declared(key)
                    self.fetched[key] = {"by": fact.provider if fact else "", "age": round(now - at, 3)}


def _unasked(decision: Decision, context: Context) -> dict[str, object]:
    """The facts of the stage that are here for the asking and that its rules did not ask for."""
    asked = decision.facts
    found: dict[str, object] = {}
    for name, read in _AT_HAND[decision.stage]:
        if name not in asked and (value := read(context)) is not PENDING:
            found[name] = value
    return found


_MOMENTARY = frozenset({"session.errors", "session.transactions", "recipients.count"})  # asked for at each stage
_AT_HAND = {
    stage: [
        (fact.name, fact.read)
        for fact in FACTS.values()
        if fact.read is not None
        and (fact.stage is stage or (fact.name in _MOMENTARY and ORDER[fact.stage] < ORDER[stage]))
        and fact.cost < SCAN
        and not fact.is_live
        and fact.name not in DERIVED
    ]
    for stage in Stage
}


def result_of(parts: tuple[Part, ...]) -> str:
    """accepted, or what became of it where nobody gets it now."""
    dispositions = {part.handling.disposition for part in parts}
    names = {Action.DISCARD: "discarded", Action.QUARANTINE: "quarantined", Action.HOLD: "held"}
    (first,) = dispositions if len(dispositions) == 1 else (None,)
    return names[first] if first in DISPOSING else "accepted"


def told_part(queue_id: str, part: Part) -> dict[str, object]:
    """A part as the trace shows it."""
    handling: Handling = part.handling
    return {
        "queue_id": queue_id,
        "recipients": [str(recipient.forward_path) for recipient in part.recipients],
        "disposition": handling.disposition.value if handling.disposition else None,
        "rule": handling.rule,
        "effects": [str(effect) for effect in handling.effects],
    }


def plain_message_id(header: Header) -> str:
    """As written, never decoded: it goes into logs and onto terminals."""
    found = header.first("Message-ID")
    text = "" if found is None else found.value.decode("ascii", "replace").strip()
    return "".join(char if char.isprintable() else "?" for char in text)[:250]
