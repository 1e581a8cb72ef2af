"""Rules and policies as they are after loading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from gateway.core.verdict import Action, Effect, Stage
from gateway.policy.catalogue import of_recipient
from gateway.policy.context import Context, arguments_of
from gateway.policy.expression import Condition, Number
from gateway.policy.lists import NamedList
from gateway.policy.rates import Rate, parse_rate
from gateway.policy.template import ReplyTemplate
from gateway.policy.values import Mark


class OnUnknown(StrEnum):
    """What a rule does whose condition hangs on a fact that could not be learnt; the later, the stricter."""

    SKIP = "skip"
    DEFER = "defer"
    MATCH = "match"


STRICTNESS = tuple(OnUnknown)
# What a check's failure means unless [checks.NAME] on_error or the rule says otherwise.
ON_ERROR: Mapping[str, OnUnknown] = MappingProxyType(
    dict.fromkeys(("antivirus", "content", "recipients"), OnUnknown.DEFER)
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a configuration says that rules stand on. on_error: by check; routes: names of its `[routes.NAME]`, None:
    there is no configuration to look into.
    """

    on_error: Mapping[str, OnUnknown] = field(default_factory=lambda: ON_ERROR)
    routes: frozenset[str] | None = None


NO_GROUND = Ground()


@dataclass(frozen=True, slots=True)
class EffectTemplate:
    """One effect of `do:`; fill gives it, PENDING while a fact in it is to be fetched, None where there is nothing to
    do; is_needed: without its facts the stage ends in a deferral.
    """

    key: str
    fill: Callable[[Context], Effect | Mark | None]
    facts: tuple[str, ...] = ()
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """condition None: always; place: `file:line`."""

    name: str
    action: Action
    condition: Condition | None
    reply: ReplyTemplate | None
    place: str
    effects: tuple[EffectTemplate, ...] = ()
    score: Number | None = None
    marks: tuple[str, ...] = ()
    is_monitor: bool = False
    on_unknown: OnUnknown | None = None

    @property
    def facts(self) -> tuple[str, ...]:
        """Keys of all facts it may read."""
        found = [*(self.condition.facts if self.condition else ()), *(self.score.facts if self.score else ())]
        found += [name for effect in self.effects for name in effect.facts]
        return (*found, *(self.reply.text.names if self.reply else ()))


@dataclass(frozen=True)
class Policy:
    """Rules by stage in the order they are tried; warnings: lints, each with its place; version: a digest of all its
    files; on_error: by check.
    """

    rules: Mapping[Stage, tuple[Rule, ...]]
    lists: Mapping[str, NamedList]
    warnings: tuple[str, ...]
    version: str = ""
    on_error: Mapping[str, OnUnknown] = field(default_factory=lambda: ON_ERROR)

    @cached_property
    def facts(self) -> frozenset[str]:
        """Keys of all facts that any rule asks for."""
        return frozenset(key for rules in self.rules.values() for rule in rules for key in rule.facts)

    @cached_property
    def rates(self) -> frozenset[Rate]:
        return frozenset(parse_rate(*arguments_of(key)) for key in self.facts if key.startswith("rate("))

    @cached_property
    def recipient_facts_at_message(self) -> tuple[str, ...]:
        """Facts of the single recipient that message rules ask for: these are judged for each that differs."""
        keys = (key for rule in self.rules[Stage.MESSAGE] for key in rule.facts if of_recipient(key))
        return tuple(dict.fromkeys(keys))
