"""Inbound judgement: stages, actions, verdicts and decisions."""

from dataclasses import dataclass
from enum import StrEnum

from gateway.core.reply import Reply


class Stage(StrEnum):
    CONNECT = "connect"
    HELO = "helo"
    SENDER = "sender"
    RECIPIENT = "recipient"
    MESSAGE = "message"


class Action(StrEnum):
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a stage decided. rule is "" where the rules ended without a decision (then the action is accept)."""

    action: Action
    rule: str = ""
    reply: Reply | None = None

    @property
    def refuses(self) -> bool:
        return self.action is not Action.ACCEPT


@dataclass(frozen=True, slots=True)
class Step:
    """One rule tried: its name, whether it matched, and the facts that it looked at (name, value)."""

    rule: str
    matched: bool
    facts: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """id: empty where nothing was refused."""

    id: str
    stage: Stage
    verdict: Verdict
    trail: tuple[Step, ...] = ()


ACCEPTED = Verdict(Action.ACCEPT)
