"""The embedded filter as it serves: a model, read anew when it has changed, and what it says of a message."""

import time
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import ConfigError
from gateway.message.mime import Part
from gateway.spam.model import Model, open_model
from gateway.spam.symbols import symbols_of
from gateway.spam.tokens import tokenise

BASE_MODEL = Path(__file__).with_name("base.model")
LOOK_EVERY_S = 2.0  # whether the site's model has changed
SCORE_SCALE = 10 / 4.6  # so that a probability of 0.99 is a score of 10, and one of 0.5 is 0
_TEST_STRING = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
TEST_SYMBOL = "GTUBE"


@dataclass(frozen=True, slots=True)
class SpamVerdict:
    """probability: at even odds of ham and spam; score: its log odds, scaled; symbols: what its structure shows."""

    probability: float
    score: float
    symbols: tuple[str, ...] = ()


class SpamFilter:
    """site: the model that a site has taught; where there is none, that which ships."""

    def __init__(self, site: Path, base: Path = BASE_MODEL) -> None:
        self._site = site
        self._base = base
        self._model: Model | None = None
        self._state: object = None
        self._looked = float("-inf")

    def judge(self, octets: bytes, parts: list[Part]) -> SpamVerdict:
        """parts: of `message.mime.walk` over these octets. Raises ConfigError when there is no model."""
        tokens = tokenise(octets, parts)
        symbols = symbols_of(tokens.signs)
        if _TEST_STRING in octets:
            return SpamVerdict(1.0, 100.0, (*symbols, TEST_SYMBOL))
        model = self._current()
        probability = model.probability(tokens)
        return SpamVerdict(round(probability, 6), round(model.logit(tokens) * SCORE_SCALE, 2), symbols)

    def _current(self) -> Model:
        now = time.monotonic()
        if self._model is None or now - self._looked > LOOK_EVERY_S:
            self._looked = now
            state = _state_of(self._site)
            if self._model is None or state != self._state:
                self._state = state
                self._model = self._opened(has_site=state is not None)
        return self._model

    def _opened(self, *, has_site: bool) -> Model:
        if has_site:
            try:
                return open_model(self._site)
            except ConfigError:
                if self._model is not None:
                    return self._model  # being written, or broken: what was there serves on
        return open_model(self._base)


def _state_of(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
