"""What the role `content` answers, on its way from one process to another."""

import json
from dataclasses import dataclass

from gateway.content.inspection import Findings, findings_of, told
from gateway.spam.filter import SpamVerdict


@dataclass(frozen=True, slots=True)
class LookedAt:
    """spam None: the filter has no opinion."""

    findings: Findings
    spam: SpamVerdict | None


def to_json(findings: Findings, spam: SpamVerdict | None) -> bytes:
    values = told(findings) | {"spam": None if spam is None else [spam.probability, spam.score, spam.symbols]}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def from_json(packet: bytes) -> LookedAt:
    """Raises ValueError."""
    try:
        values = json.loads(packet)
        spam = values["spam"]
        verdict = None if spam is None else SpamVerdict(float(spam[0]), float(spam[1]), tuple(spam[2]))
        return LookedAt(findings_of(values), verdict)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no findings: {error}") from error
