"""Recorded transactions through a candidate policy, on the facts of that day: which verdicts would be others?

Each recipient of a transaction is judged as the record has it: its facts, or none. A rule that asks for a fact that was
not recorded makes its recipient undecidable: counted, never guessed. A mail refused at an early stage has no record of
the later ones, so what a candidate lets pass there counts as accepted as far as the record goes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.verdict import REFUSING, Action, Guard, Stage
from gateway.policy.catalogue import DERIVED, FACTS, of_recipient
from gateway.policy.context import Context, Need, later
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
    """record: a transaction's data as the recorder wrote it. Each of its recipients in turn.

    look_up: learns today what was not recorded, or raises NotRecorded for what today does not know either.
    """
    last = _last_stage(record)
    for recipient in record["recipients"] or [""]:
        name = record["queue_id"] or _decision_id(record, recipient) or record["session"]
        before = _before(record, recipient)
        if _is_exempt(record, recipient):
            yield Replayed(name, recipient, before, before)
            continue
        try:
            after = _after(policy, record, recipient, last, look_up)
        except NotRecorded as error:
            yield Replayed(name, recipient, before, None, str(error.args[0]))
        else:
            yield Replayed(name, recipient, before, after)


def facts_of(record: Mapping[str, Any], recipient: str) -> RecordedFacts:
    """All that was known when this recipient's mail was judged."""
    found = RecordedFacts(_envelope(record))
    layers: list[Mapping[str, Any]] = [record.get("background", {}), record["facts"]]
    decisions = _decisions_for(record, recipient)
    layers += [each.get(part, {}) for each in decisions for part in ("background", "facts")]
    for layer in layers:
        for key, value in layer.items():
            if key not in _GIVEN_BY_RULES:
                found[key] = _value(value)
    found["recipient.address"] = recipient
    if not any(each["recipient"] for each in decisions):
        # Only what another recipient showed is at hand: that says nothing of this one.
        for key in [key for key in found if of_recipient(key) and key != "recipient.address"]:
            del found[key]
    return found


def _envelope(record: Mapping[str, Any]) -> dict[str, Found]:
    """From which all DERIVED facts follow, but the recipient."""
    return {
        "client.ip": record["client"],
        "client.port": record["port"],
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
        case list():
            return tuple(str(each) for each in value)
        case bool() | int() | float() | str() | None:
            return value
        case _:
            return str(value)


def _last_stage(record: Mapping[str, Any]) -> Stage:
    return later(Stage.CONNECT, *(Stage(each["stage"]) for each in record["decisions"]))


def _decisions_for(record: Mapping[str, Any], recipient: str) -> list[Mapping[str, Any]]:
    return [each for each in record["decisions"] if not each["recipient"] or recipient in each["recipient"].split(" ")]


def _decision_id(record: Mapping[str, Any], recipient: str) -> str:
    return next((each["id"] for each in _decisions_for(record, recipient) if each["id"]), "")


def _is_exempt(record: Mapping[str, Any], recipient: str) -> bool:
    """A local postmaster was asked about at RCPT though an earlier stage had refused: that refusal was not for it."""
    early = (Stage.CONNECT, Stage.HELO, Stage.SENDER)
    refused = any(each["stage"] in early and each["action"] in REFUSING for each in record["decisions"])
    return refused and any(
        each["recipient"] and recipient in each["recipient"].split(" ") for each in record["decisions"]
    )


def _before(record: Mapping[str, Any], recipient: str) -> Outcome:
    """The first refusal that this recipient met; else what kept the message back; else accepted."""
    disposed = Outcome(Action.ACCEPT.value, "")
    for each in _decisions_for(record, recipient):
        action = each["action"]
        if action in REFUSING:
            return Outcome(action, each["rule"])
        if action != Action.ACCEPT:
            disposed = Outcome(action, each["rule"])
    return disposed


def explain_record(policy: Policy, record: Mapping[str, Any], recipient: str) -> tuple[Rehearsal, tuple[str, ...]]:
    """Each rule that a policy tries on what was recorded, and the keys of facts that it asks for and were not."""
    lacking: dict[str, None] = {}

    def lack(need: Need) -> Found:
        lacking[need.key] = None
        return UNKNOWN

    found = rehearse(policy, facts_of(record, recipient), _NO_RULES, _last_stage(record), fetch=lack, full=True)
    return found, tuple(lacking)


def _after(policy: Policy, record: Mapping[str, Any], recipient: str, last: Stage, look_up: LookUp | None) -> Outcome:
    facts = facts_of(record, recipient)

    def fetch(need: Need) -> Found:
        if look_up is None:
            raise NotRecorded(need.key)
        return look_up(need, rehearsed_context(facts, _NO_RULES))

    found = rehearse(policy, facts, _NO_RULES, last, fetch=fetch)
    if found.action not in REFUSING:
        guard = _guard(record, recipient, facts)
        if guard is not None:
            return guard
    return Outcome(found.action.value, "" if found.action is Action.ACCEPT else found.rule)


def _guard(record: Mapping[str, Any], recipient: str, facts: RecordedFacts) -> Outcome | None:
    """What holds whatever the rules say: a guard's refusal then, and no relaying for strangers now."""
    for each in _decisions_for(record, recipient):
        if each["rule"] in list(Guard):
            return Outcome(each["action"], each["rule"])
    is_foreign = facts.get("recipient.is_local") is False and facts.get("recipient.is_relayed") is False
    if is_foreign and not record["trusted"] and not record["user"]:
        return Outcome(Action.REJECT.value, Guard.RELAY.value)
    return None
