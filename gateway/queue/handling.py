"""What policies want done with a message, and for whom."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.core.transaction import Recipient
from gateway.core.verdict import Action, ByRoute, Effect, Protection, RequireTls, StripAttachments


@dataclass(frozen=True, slots=True)
class Handling:
    """What policies want done with a message for some of its recipients. disposition: discard, quarantine or hold, by
    the word of `rule`; None: deliver; is_self_released: its recipients may release it from quarantine; is_refused: it
    is kept only because the others get it.
    """

    effects: tuple[Effect, ...] = ()
    disposition: Action | None = None
    rule: str = ""
    is_self_released: bool = False
    is_refused: bool = False

    @property
    def route(self) -> str:
        """The last rule's word counts."""
        return next((effect.name for effect in reversed(self.effects) if isinstance(effect, ByRoute)), "")

    @property
    def removed(self) -> dict[str, str]:
        """Files by the number of their part, of all rules that want some removed."""
        found = [effect for effect in self.effects if isinstance(effect, StripAttachments)]
        return {part: name for effect in found for part, name in effect.parts}

    @property
    def protection(self) -> Protection:
        """The strictest that any rule wants."""
        wanted = {effect.protection for effect in self.effects if isinstance(effect, RequireTls)}
        strict_first = (Protection.VERIFIED, Protection.ENCRYPTED)
        return next((each for each in strict_first if each in wanted), Protection.ANY)


@dataclass(frozen=True, slots=True)
class Part:
    """Recipients that are handled alike."""

    recipients: tuple[Recipient, ...]
    handling: Handling


def effects_of(parts: Iterable[Part]) -> list[Effect]:
    return [effect for part in parts for effect in part.handling.effects]
