"""Spam engines outside of this program: what they are told, and what their scores mean here."""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol
from urllib.parse import urlsplit

from gateway.spam.filter import SCORE_SCALE, SpamVerdict
from gateway.spam.model import MAX_LOGIT, sigmoid

EMBEDDED = "bayes"
MAX_SYMBOLS = 100
# Log odds of 0.01, 0.9 and 0.99: what no score, an engine's own threshold, and a sure one stand for.
_NOTHING, _LIKELY, _SURE = -4.6, 2.2, 4.6
_SYMBOL = re.compile(r"[\w.:()-]{1,80}")


class EngineError(Exception):
    """No verdict."""


@dataclass(frozen=True, slots=True)
class Envelope:
    client_ip: str
    client_name: str
    helo: str
    user: str
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores of an engine: from likely on it calls a message spam, from sure on it would refuse it."""

    likely: float
    sure: float


class Engine(Protocol):
    name: str

    async def judge(self, octets: bytes, envelope: Envelope) -> SpamVerdict:
        """Raises EngineError."""

    async def learn(self, octets: bytes, *, is_spam: bool) -> None:
        """Raises EngineError."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """kind: bayes, rspamd or spamd."""

    kind: str
    url: str = ""
    host: str = ""
    port: int = 0


def parse_engine(text: str) -> EngineAddress:
    """`bayes`, `rspamd:http://127.0.0.1:11333`, `spamd:127.0.0.1:783`. Raises ValueError."""
    kind, _, rest = text.partition(":")
    if text == EMBEDDED:
        return EngineAddress(EMBEDDED)
    if kind == "rspamd":
        parts = urlsplit(rest)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/") and not parts.query:
            return EngineAddress(kind, url=f"http://{parts.netloc}")
    elif kind == "spamd":
        host, colon, port = rest.rpartition(":")
        if colon and host and port.isdigit() and 0 < int(port) < 65536:
            return EngineAddress(kind, host=host.strip("[]"), port=int(port))
    raise ValueError(f"{text!r}: an engine is bayes, rspamd:http://HOST:PORT or spamd:HOST:PORT")


def as_verdict(score: float, thresholds: Thresholds, symbols: tuple[str, ...]) -> SpamVerdict:
    """An engine's score as a probability: its own thresholds stand for 0.9 and 0.99, and nothing found for 0.01."""
    points = [(0.0, _NOTHING), (max(0.1, thresholds.likely), _LIKELY), (max(0.2, thresholds.sure), _SURE)]
    for (low, low_logit), (high, high_logit) in pairwise(points):  # noqa: B007  # the last pair goes on beyond its end
        if score < high:
            break
    logit = low_logit + (score - low) * (high_logit - low_logit) / max(0.1, high - low)
    kept = tuple(symbol for symbol in symbols[:MAX_SYMBOLS] if _SYMBOL.fullmatch(symbol))
    found = max(-MAX_LOGIT, min(MAX_LOGIT, logit))
    return SpamVerdict(round(sigmoid(found), 6), round(found * SCORE_SCALE, 2), kept)
