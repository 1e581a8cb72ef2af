"""Texts with `{fact}` places: replies and header values."""

from dataclasses import dataclass

from gateway.content.attachment import Attachment
from gateway.core.reply import MAX_LINE, Reply
from gateway.policy.context import Context
from gateway.policy.values import PENDING, UNKNOWN, Evaluate, Mark

MAX_PLACE = 320  # characters that one fact may fill


@dataclass(frozen=True, slots=True)
class Template:
    """parts: texts and readers of facts in turn, a text first. names: of the facts."""

    parts: tuple[str | Evaluate, ...]
    names: tuple[str, ...] = ()

    def fill(self, context: Context) -> str | Mark:
        """Printable ASCII whatever the facts hold; PENDING while one is to be fetched."""
        out: list[str] = []
        is_pending = False
        for part in self.parts:
            if isinstance(part, str):
                out.append(part)
                continue
            value = part(context)
            is_pending = is_pending or value is PENDING
            out.append(_shown(value))
        return PENDING if is_pending else "".join(out)


def _shown(value: object) -> str:
    if value is UNKNOWN:
        return "unknown"
    if isinstance(value, tuple):
        value = " ".join(each.name if isinstance(each, Attachment) else each for each in value)
    text = "none" if value is None else str(value)
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:MAX_PLACE]


@dataclass(frozen=True, slots=True)
class ReplyTemplate:
    code: int
    status: str
    text: Template

    def fill(self, context: Context) -> Reply | Mark:
        """The reply, one line of at most 512 octets with room for an id."""
        text = self.text.fill(context)
        return text if isinstance(text, Mark) else Reply(self.code, self.status, (text[: MAX_LINE - 40],))
