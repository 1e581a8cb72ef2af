"""What a stage looks at: the session and transaction as they stand, and layers of what was learnt and given on the way.

A layer belongs to a stage and lives as long as its scope: connect and helo as long as the connection, sender as long
as the transaction, recipient and message for one of them. A new HELO or MAIL begins new layers from its stage on.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gateway.core.address import Mailbox, ReversePath
from gateway.core.ports import Directory, EarlyTalk
from gateway.core.transaction import Session
from gateway.core.verdict import Action, Effect, Stage
from gateway.message.blob import Blob
from gateway.message.header import Header
from gateway.policy.values import Found

STAGES = tuple(Stage)
ORDER = {stage: number for number, stage in enumerate(STAGES)}


@dataclass(frozen=True, slots=True)
class Need:
    """A fact that has to be fetched. key: `dnsbl("zen.example")`; provider: the check that gives it."""

    key: str
    name: str
    arguments: tuple[str, ...]
    stage: Stage
    cost: int
    provider: str


@dataclass(frozen=True, slots=True)
class Disposition:
    """action: discard, quarantine or hold; rule: whose word it is; is_self_released: may recipients release it?"""

    action: Action
    rule: str
    is_self_released: bool = False


@dataclass(slots=True)
class Layer:
    """known: facts that were fetched; learnt: when, in seconds since the epoch; the rest is what rules gave."""

    known: dict[str, Found] = field(default_factory=dict)
    learnt: dict[str, float] = field(default_factory=dict)
    score: float = 0.0
    marks: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    disposition: Disposition | None = None


def later(*stages: Stage) -> Stage:
    """The last of them in the order of a transaction."""
    return max(stages, key=ORDER.__getitem__)


def key_of(name: str, arguments: tuple[str, ...]) -> str:
    """What a function's value is known by: `dnsbl("zen.example")`."""
    return f"{name}({', '.join(map(json.dumps, arguments))})"


def arguments_of(key: str) -> tuple[str, ...]:
    return tuple(json.loads(f"[{key[key.index('(') + 1 : -1]}]"))


def new_layers() -> tuple[Layer, ...]:
    return tuple(Layer() for _ in STAGES)


def layers_from(layers: tuple[Layer, ...], stage: Stage) -> tuple[Layer, ...]:
    """The same up to `stage`, new ones from there on."""
    number = ORDER[stage]
    return (*layers[:number], *(Layer() for _ in STAGES[number:]))


@dataclass(slots=True, eq=False, weakref_slot=True)
class MessageFacts:
    """What end of data showed, for the message stage. Checks remember what they learnt of it as long as it lives."""

    blob: Blob
    has_8bit: bool
    header: Header
    urls: tuple[str, ...] | None = None  # None: not looked for yet

    @property
    def size(self) -> int:
        return self.blob.size


@dataclass
class Context:
    """All that one run of a stage may look at. Made by the driver for each run; the engine notes in it what it saw.

    seen: facts looked at, by key; pending: facts that an answer hangs on and that must be fetched.
    """

    session: Session
    directory: Directory
    hostname: str
    errors: int = 0
    transactions: int = 0
    early_talk: EarlyTalk | None = None
    reverse_path: ReversePath | None = None
    recipient: Mailbox | None = None
    recipient_count: int = 0
    message: MessageFacts | None = None
    layers: tuple[Layer, ...] = field(default_factory=new_layers)
    seen: dict[str, Found] = field(default_factory=dict)
    pending: list[Need] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # keys that the answer hangs on and that could not be learnt
    variables: dict[str, Any] = field(default_factory=dict)  # of any() and all(): texts and records
    given: Mapping[str, Found] | None = None  # facts as a test or a record has them, before any other source

    def anew(self, **changes: Any) -> "Context":
        """For another run: the same but for `changes`, with nothing noted yet."""
        return replace(self, **{"seen": {}, "pending": [], "unknown": [], "variables": {}, **changes})

    @cached_property
    def header(self) -> Header:
        return Header((), 0, False) if self.message is None else self.message.header

    @property
    def score(self) -> float:
        return sum((layer.score for layer in self.layers), 0.0)

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(mark for layer in self.layers for mark in layer.marks))

    def put(self, need: Need, value: Found) -> None:
        layer = self.layers[ORDER[need.stage]]
        layer.known[need.key] = value
        layer.learnt[need.key] = time.time()
