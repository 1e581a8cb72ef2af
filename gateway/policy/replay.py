"""Recorded transactions through a candidate policy, on the facts of that day: which verdicts would be others?

Each recipient of a transaction is judged as the record has it: its facts, or none. A rule that asks for a fact that was
not recorded makes its recipient undecidable: counted, never guessed. A mail refused at an early stage has no record of
the later ones, so what a candidate lets pass there counts as accepted as far as the record goes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.content.attachment import attachment_of
from gateway.core.verdict import REFUSING, Action, Guard, Stage
from gateway.policy.catalogue import DERIVED, FACTS, is_varying, of_recipient
from gateway.policy.context import ORDER, STAGES, Context, Need, later
from gateway.policy.rehearsal import Rehearsal, Surroundings, rehearse, rehearsed_context
from gateway.policy.rules import Policy
from gateway.policy.values import PENDING, UNKNOWN, Found

_NO_RULES = Surroundings()
_GIVEN_BY_RULES = frozenset(
    name for name, fact in FACTS.items() if fact.is_live
)  # the candidate's rules give their own


LookUp = Callable[[Need, Context], Found]


class NotRecorded(Exception):
    """A fact that the record lacks; its key is the argument."""


class RecordedFacts(dict[str, Found]):
    """What was known then. All else is pending, and nothing is computed from today: if an answer hangs on it, whoever
    rehearses is asked.
    """

    def __contains__(self, key: object) -> bool:
        """What the envelope says is worked out from it."""
        return key not in DERIVED or dict.__contains__(self, key)

    def __missing__(self, key: str) -> Found:
        return PENDING


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy or a guard said of a recipient's mail. rule "": none decided."""

    action: str
    rule: str

    def __str__(self) -> str:
        return f"{self.action} by “{self.rule}”" if self.rule else self.action


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recipient of one transaction. id: for `smarthost trace`; after None: undecidable for want of `lacks`."""

    id: str
    recipient: str
    before: Outcome
    after: Outcome | None
    lacks: str = ""

    @property
    def differs(self) -> bool:
        return self.after is not None and self.after != self.before


def replay(policy: Policy, record: Mapping[str, Any], look_up: LookUp | None = None) -> Iterator[Replayed]:
    """record: a transaction's data as the recorder wrote it. Each of its recipients in turn; nothing for what was no
    transaction (a command that was refused outside of any).

    look_up: learns today what was not recorded, or raises NotRecorded for what today does not know either.
    """
    recipients = list(dict.fromkeys(record["recipients"]))
    if not recipients and not any(each["action"] in REFUSING for each in record["decisions"]):
        return
    for recipient in recipients or [""]:
        past = _Past(record, recipient)
        if past.is_exempt:
            yield Replayed(past.name, recipient, past.before, past.before)
            continue
        try:
            after = _after(policy, past, look_up)
        except NotRecorded as error:
            yield Replayed(past.name, recipient, past.before, None, str(error.args[0]))
        else:
            yield Replayed(past.name, recipient, past.before, after)


def explain_record(policy: Policy, record: Mapping[str, Any], recipient: str) -> tuple[Rehearsal, tuple[str, ...]]:
    """Each rule that a policy tries on what was recorded, and the keys of facts that it asks for and were not."""
    past = _Past(record, recipient)
    lacking: dict[str, None] = {}

    def lack(need: Need) -> Found:
        lacking[need.key] = None
        return UNKNOWN

    found = rehearse(policy, past.envelope, _NO_RULES, past.last, fetch=lack, at=past.facts_at, full=True)
    return found, tuple(lacking)


class _Past:
    """One recipient of a recorded transaction. decisions: those that were about it, of several tries the last."""

    def __init__(self, record: Mapping[str, Any], recipient: str) -> None:
        self.record, self.recipient = record, recipient
        found: dict[tuple[str, bool], Mapping[str, Any]] = {}
        for each in record["decisions"]:
            if not each["recipients"] or recipient in each["recipients"]:
                found[each["stage"], each["rule"] in _NO_STAGE] = each
        self.decisions = sorted(found.values(), key=lambda each: ORDER[Stage(each["stage"])])
        self.envelope = RecordedFacts(_envelope(record) | {"recipient.address": recipient})
        self.last = later(Stage.CONNECT, *(Stage(each["stage"]) for each in self.decisions))

    @property
    def name(self) -> str:
        """For `smarthost trace`."""
        ids = (each["id"] for each in self.decisions if each["id"])
        return self.record["queue_id"] or next(ids, "") or str(self.record["session"])

    @property
    def is_exempt(self) -> bool:
        """A local postmaster was asked about at RCPT though an earlier stage had refused: that was not for it."""
        early = (Stage.CONNECT, Stage.HELO, Stage.SENDER)
        refused = any(each["stage"] in early and each["action"] in REFUSING for each in self.decisions)
        return refused and any(each["recipients"] for each in self.decisions)

    @property
    def guard(self) -> Mapping[str, Any] | None:
        return next((each for each in self.decisions if each["rule"] in list(Guard)), None)

    @property
    def before(self) -> Outcome:
        """The first refusal that this recipient met; else what kept the message back; else accepted."""
        disposed = Outcome(Action.ACCEPT.value, "")
        for each in self.decisions:
            if each["action"] in REFUSING:
                return Outcome(each["action"], each["rule"])
            if each["action"] != Action.ACCEPT:
                disposed = Outcome(each["action"], each["rule"])
        return disposed

    def facts_at(self, stage: Stage) -> RecordedFacts:
        """What was known when this recipient's mail was judged there."""
        found = RecordedFacts(self.envelope)
        if stage is Stage.CONNECT and self.record["listener"] == "smtp" and self.record["tls"]:
            for key in [key for key in found if key.startswith("session.tls.")]:
                found[key] = PENDING  # STARTTLS came later, or came with a sign-in: who knows
        for layer in (self.record.get("background", {}), self.record["facts"]):
            found.update((key, _value(value)) for key, value in layer.items() if not is_varying(key))
        for each in self.decisions:
            is_there = each["stage"] == stage
            for part in ("background", "facts"):
                for key, value in each.get(part, {}).items():
                    # Of the recipient what RCPT showed is true at the end of data too; the rest is of its moment.
                    is_lasting = not is_varying(key) or (of_recipient(key) and not key.startswith("rate("))
                    if (is_there or is_lasting) and key not in _GIVEN_BY_RULES:
                        found[key] = _value(value)
        return found


def _envelope(record: Mapping[str, Any]) -> dict[str, Found]:
    """From which all DERIVED facts follow, but the recipient."""
    return {
        "client.ip": record["client"],
        "client.port": record["port"],
        "client.trusted": record["trusted"],
        "session.listener": record["listener"],
        "session.tls.active": record["tls"] is not None,
        "session.tls.version": record["tls"],
        "session.tls.cipher": record.get("cipher"),
        "auth.user": record["user"],
        "auth.method": record.get("method") or None,
        "helo.name": record["helo"],
        "helo.esmtp": record.get("esmtp", True),
        "sender.address": record["sender"] or "",
    }


def _value(value: object) -> Found:
    match value:
        case {"unknown": True}:
            return UNKNOWN
        case [dict(), *_]:
            return tuple(attachment_of(each) for each in value if isinstance(each, dict))
        case list():
            return tuple(str(each) for each in value)
        case bool() | int() | float() | str() | None:
            return value
        case _:
            return str(value)


def _after(policy: Policy, past: _Past, look_up: LookUp | None) -> Outcome:
    """A guard's word stands whatever the rules say, unless they refuse before it."""

    def fetch(need: Need) -> Found:
        if look_up is None:
            raise NotRecorded(need.key)
        return look_up(need, rehearsed_context(past.envelope, _NO_RULES))

    guard, last = past.guard, past.last
    if guard is not None and guard["rule"] in _NO_STAGE:
        last = STAGES[ORDER[Stage(guard["stage"])] - 1]  # there the rules of the stage were not asked
    found = rehearse(policy, past.envelope, _NO_RULES, last, fetch=fetch, at=past.facts_at)
    if found.action not in REFUSING:
        if guard is not None:
            return Outcome(guard["action"], guard["rule"])
        if _is_foreign(past):
            return Outcome(Action.REJECT.value, Guard.RELAY.value)
    return Outcome(found.action.value, "" if found.action is Action.ACCEPT else found.rule)


def _is_foreign(past: _Past) -> bool:
    """No relaying for strangers, whatever a candidate lets pass."""
    facts, record = past.facts_at(Stage.RECIPIENT), past.record
    is_elsewhere = facts.get("recipient.is_local") is False and facts.get("recipient.is_relayed") is False
    return is_elsewhere and not record["trusted"] and not record["user"]


_NO_STAGE = (Guard.OWN_NAME.value, Guard.HOPS.value)  # these guards come before the rules of their stage
