"""What one SMTP session leaves in the trace: its transactions, each with decisions, trail, reply and queue id."""

from dataclasses import dataclass, field

from gateway.core.reply import Reply
from gateway.core.transaction import Session
from gateway.core.verdict import Decision
from gateway.policy.values import UNKNOWN
from gateway.telemetry.recorder import Recorder

MAX_NOTES = 500  # decisions and refusals kept of one transaction


@dataclass(slots=True)
class TransactionRecord:
    """One transaction, or what happened in a session outside of any."""

    sender: str | None = None  # None: no MAIL was seen
    recipients: list[str] = field(default_factory=list)
    decisions: list[tuple[Decision, str]] = field(default_factory=list)  # with the recipient it was for, or ""
    refusals: list[tuple[str, Reply, str]] = field(default_factory=list)  # verb, reply, decision id
    message_id: str = ""
    size: int = 0
    parts: list[dict[str, object]] = field(default_factory=list)  # of an accepted message

    def add_decision(self, decision: Decision, recipient: str = "") -> None:
        if len(self.decisions) < MAX_NOTES:
            self.decisions.append((decision, recipient))

    def replace_decision(self, decision: Decision) -> None:
        """The newest of its stage counts: a client may greet again and again."""
        self.decisions = [(other, to) for other, to in self.decisions if other.stage is not decision.stage]
        self.decisions.append((decision, ""))

    def add_refusal(self, verb: str, answer: Reply, decision_id: str) -> None:
        if len(self.refusals) < MAX_NOTES:
            self.refusals.append((verb, answer, decision_id))

    @property
    def is_worth_keeping(self) -> bool:
        return bool(self.recipients or self.refusals or any(d.verdict.refuses for d, _ in self.decisions))

    def write(
        self, recorder: Recorder, session: Session, result: str, answer: Reply | None, queue_ids: tuple[str, ...] = ()
    ) -> None:
        ids = [decision.id for decision, _ in self.decisions if decision.id]
        keys = {session.id, *queue_ids, (self.sender or "").lower(), self.message_id, *ids}
        keys.update(recipient.lower() for recipient in self.recipients)
        keys.update(decision_id for _, _, decision_id in self.refusals)
        recorder.record("transaction", tuple(keys), self._data(session, result, answer, queue_ids))

    def _data(
        self, session: Session, result: str, answer: Reply | None, queue_ids: tuple[str, ...]
    ) -> dict[str, object]:
        facts: dict[str, object] = {}
        decisions = [_decision(decision, recipient, facts) for decision, recipient in self.decisions]
        return {
            "session": session.id,
            "listener": session.listener,
            "client": session.client_ip,
            "port": session.client_port,
            "name": session.client_name,
            "helo": session.helo,
            "tls": session.tls.version if session.tls else None,
            "user": session.user,
            "trusted": session.is_trusted,
            "sender": self.sender,
            "recipients": self.recipients,
            "facts": facts,
            "decisions": decisions,
            "refusals": [[verb, str(reply), decision_id] for verb, reply, decision_id in self.refusals],
            "result": result,
            "reply": str(answer) if answer is not None else None,
            "queue_id": queue_ids[0] if queue_ids else "",
            "parts": self.parts,
            "message_id": self.message_id,
            "size": self.size,
        }


def _decision(decision: Decision, recipient: str, facts: dict[str, object]) -> dict[str, object]:
    """facts: gathers what was looked at; a decision keeps only what it saw otherwise (its recipient's, mostly)."""
    own: dict[str, object] = {}
    for key, value in decision.facts.items():
        shown = {"unknown": True} if value is UNKNOWN else value
        if facts.setdefault(key, shown) != shown:
            own[key] = shown
    found: dict[str, object] = {
        "id": decision.id,
        "stage": decision.stage.value,
        "action": decision.verdict.action.value,
        "rule": decision.verdict.rule,
        "recipient": recipient,
        "reply": str(decision.verdict.reply) if decision.verdict.reply else None,
        "trail": [[step.rule, step.action.value, step.matched.value] for step in decision.trail],
    }
    if own:
        found["facts"] = own
    if decision.score:
        found["score"] = decision.score
    if decision.marks:
        found["marks"] = decision.marks
    if decision.effects:
        found["effects"] = [str(effect) for effect in decision.effects]
    return found
