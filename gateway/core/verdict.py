"""Inbound judgement: stages, actions, verdicts and decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    DISCARD = "discard"
    QUARANTINE = "quarantine"
    HOLD = "hold"
    NOTE = "note"  # decides nothing


class Guard(StrEnum):
    """What refuses whatever the rules say; it stands where else a rule's name does."""

    OWN_NAME = "our own name in HELO"
    RELAY = "relay guard"
    MAILBOX = "no such mailbox"  # said to a hop of ours, whose client the rules will judge
    HOP = "unreadable hop"  # of ours: nobody can tell whom to judge
    NULL_SENDER = "null reverse-path"
    HOPS = "hop count"
    HEADER = "header"  # one that would run into ours, or is too long to be looked at whole


REFUSING = frozenset({Action.REJECT, Action.DEFER})
DISPOSING = frozenset({Action.DISCARD, Action.QUARANTINE, Action.HOLD})  # answered by 250


@dataclass(frozen=True, slots=True)
class AddHeader:
    name: str
    value: str

    def __str__(self) -> str:
        return f"add_header {self.name}: {self.value}"


@dataclass(frozen=True, slots=True)
class TagSubject:
    tag: str

    def __str__(self) -> str:
        return f"tag_subject {self.tag}"


@dataclass(frozen=True, slots=True)
class Redirect:
    address: str

    def __str__(self) -> str:
        return f"redirect {self.address}"


@dataclass(frozen=True, slots=True)
class Bcc:
    address: str

    def __str__(self) -> str:
        return f"bcc {self.address}"


@dataclass(frozen=True, slots=True)
class Delay:
    seconds: float

    def __str__(self) -> str:
        return f"delay {self.seconds:g}"


class Protection(StrEnum):
    """What the way to the next host must be. VERIFIED: its certificate is valid and names it, too."""

    ANY = ""
    ENCRYPTED = "encrypted"
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True)
class ByRoute:
    """name: of a `[routes.NAME]`."""

    name: str

    def __str__(self) -> str:
        return f"route {self.name}"


@dataclass(frozen=True, slots=True)
class RequireTls:
    protection: Protection

    def __str__(self) -> str:
        return f"require_tls {self.protection}"


@dataclass(frozen=True, slots=True)
class StripAttachments:
    """parts: numbers of MIME parts with the names of the files that they are."""

    parts: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"strip_attachments {', '.join(name or 'unnamed' for _, name in self.parts)}"


@dataclass(frozen=True, slots=True)
class SelfRelease:
    """Its recipient may release what is kept in quarantine."""

    def __str__(self) -> str:
        return "self_release"


Effect = SelfRelease | StripAttachments | AddHeader | TagSubject | Redirect | Bcc | ByRoute | RequireTls | Delay


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a stage decided. rule is "" where the rules ended without a decision (then the action is accept)."""

    action: Action
    rule: str = ""
    reply: Reply | None = None

    @property
    def refuses(self) -> bool:
        return self.action in REFUSING


class Matched(StrEnum):
    """What became of one rule's condition."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"  # it hung on a fact that could not be learnt, and its rule says what then
    WOULD = "would"  # a monitor rule matched


@dataclass(frozen=True, slots=True)
class Step:
    """One rule tried."""

    rule: str
    action: Action
    matched: Matched


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """action: as of a Verdict, or "undecided"; then rule is the key of the fact that was not at hand."""

    action: str
    rule: str


@dataclass(frozen=True, slots=True)
class Decision:
    """id: empty where nothing was refused; trail: the rules that did not simply fail to match (all, if asked for);
    facts: what was looked at, by key, None inside meaning none; score and marks: what this stage gave.
    """

    id: str
    stage: Stage
    verdict: Verdict
    trail: tuple[Step, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    score: float = 0.0
    marks: tuple[str, ...] = ()
    shadow: ShadowVerdict | None = None  # where the shadow policy says something else

    def beside(self, shadow: ShadowVerdict) -> "Decision":
        return replace(self, shadow=shadow)


ACCEPTED = Verdict(Action.ACCEPT)
