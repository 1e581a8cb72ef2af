"""The filter's model: a weight for each bucket of tokens, two counts for each of words, in a flat file of 3 MiB.

Two opinions are put together. The weights are a logistic regression's: of each kind of tokens the sum, by the square
root of how many there are, so that a message of unknown words says little. The counts give each token a chance of its
own, and the most telling ones are combined by Fisher's chi-square, which carries over to mail unlike that which was
learnt. A stack fitted on mail that neither had seen makes a probability of both: at even odds of ham and spam.
"""

import json
import math
import os
import struct
from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.errors import ConfigError
from gateway.spam.tokens import ALL_BUCKETS, BUCKETS, Tokens

MAGIC = b"SHSPAM2\n"
KIND_WEIGHTS = (1.0, 1.0, 0.85, 1.0, 1.0)  # of words, header, structure, letters and subject
STRONGEST = 150  # tokens that chi-square looks at
NEUTRAL = 0.1  # a token this near to an even chance says nothing
MAX_LOGIT = 30.0
_HEAD = struct.Struct("<8sI4x")
_ROOM = 4096  # for what is said of the model


@dataclass(frozen=True, slots=True)
class Stack:
    """logit = regression * z + c / 10 times for_spam where c speaks for spam, for_ham where it speaks for ham, + base.

    Unknown ham has few words of ham: what chi-square makes of that says less than what it makes of words of spam.
    """

    regression: float = 1.0
    for_spam: float = 1.6
    for_ham: float = 1.6
    base: float = 0.0

    def logit(self, z: float, c: float) -> float:
        return self.regression * z + (self.for_spam if c > 0 else self.for_ham) * c / 10 + self.base


@dataclass(slots=True)
class Model:
    """spam, ham: how many messages were learnt; told: how it was made, for people."""

    weights: MutableSequence[float]
    in_spam: MutableSequence[int]
    in_ham: MutableSequence[int]
    spam: int = 0
    ham: int = 0
    stack: Stack = Stack()
    told: Mapping[str, Any] = field(default_factory=dict)

    def regression(self, tokens: Tokens) -> float:
        weights = self.weights
        found = 0.0
        for kind, scale in zip(tokens.kinds, KIND_WEIGHTS, strict=True):
            if kind:
                found += scale / math.sqrt(len(kind)) * sum([weights[bucket] for bucket in kind])
        return found

    def chi(self, tokens: Tokens) -> float:
        """Log odds of Fisher's two tests, at most 50 either way."""
        in_spam, in_ham = self.in_spam, self.in_ham
        one_spam, one_ham = 1 / max(1, self.spam), 1 / max(1, self.ham)
        chances = []
        for kind in tokens.counted:
            for bucket in kind:
                spam, ham = in_spam[bucket], in_ham[bucket]
                count = spam + ham
                if count:
                    rate = spam * one_spam
                    chance = (0.5 + count * rate / (rate + ham * one_ham)) / (1 + count)
                    if abs(chance - 0.5) > NEUTRAL:
                        chances.append(chance)
        if not chances:
            return 0.0
        if len(chances) > STRONGEST:
            chances.sort(key=lambda chance: -abs(chance - 0.5))
            del chances[STRONGEST:]
        spam_sum = -sum([math.log(chance) for chance in chances])
        ham_sum = -sum([math.log(1 - chance) for chance in chances])
        found = _log_tail(spam_sum, len(chances)) - _log_tail(ham_sum, len(chances))
        return max(-50.0, min(50.0, found))

    def logit(self, tokens: Tokens) -> float:
        found = self.stack.logit(self.regression(tokens), self.chi(tokens))
        return max(-MAX_LOGIT, min(MAX_LOGIT, found))

    def probability(self, tokens: Tokens) -> float:
        return sigmoid(self.logit(tokens))


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-MAX_LOGIT, min(MAX_LOGIT, logit))))


def _log_tail(half: float, degrees: int) -> float:
    """ln of the chance that chi-square with 2 * degrees of freedom is at least 2 * half."""
    if half < degrees:
        term = total = math.exp(-half)
        for number in range(1, degrees):
            term *= half / number
            total += term
        return math.log(min(1.0, total))
    term = total = 1.0
    for number in range(degrees - 1, 0, -1):
        term *= number / half
        total += term
        if term < 1e-12:
            break
    return min(0.0, -half + (degrees - 1) * math.log(half) - math.lgamma(degrees) + math.log(total))


def empty_model() -> Model:
    zeros = bytes(2 * BUCKETS)
    return Model(array("f", bytes(4 * ALL_BUCKETS)), array("H", zeros), array("H", zeros))


def write_model(model: Model, path: Path) -> None:
    """Whole or not at all: who has the old file open keeps it."""
    stack = model.stack
    told = {
        "spam": model.spam, "ham": model.ham,
        "stack": [stack.regression, stack.for_spam, stack.for_ham, stack.base], "told": dict(model.told),
    }  # fmt: skip
    text = json.dumps(told).encode()
    if len(text) > _ROOM:
        raise ValueError(f"{len(text)} octets are said of the model, at most {_ROOM} fit")
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(_HEAD.pack(MAGIC, len(text)) + text.ljust(_ROOM))
        file.write(array("f", model.weights).tobytes())
        file.write(array("H", model.in_spam).tobytes())
        file.write(array("H", model.in_ham).tobytes())
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def open_model(path: Path) -> Model:
    """To read from. Not mapped: a file that somebody cuts short would end who maps it. Raises ConfigError."""
    try:
        octets = memoryview(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error}") from error
    return _model_over(octets, path)


def read_model(path: Path) -> Model:
    """To be changed. Raises ConfigError."""
    found = open_model(path)
    found.weights = array("f", found.weights)
    found.in_spam, found.in_ham = array("H", found.in_spam), array("H", found.in_ham)
    return found


def _model_over(octets: memoryview, path: Path) -> Model:
    start = _HEAD.size + _ROOM
    counts_at = start + 4 * ALL_BUCKETS
    if len(octets) != counts_at + 4 * BUCKETS:
        raise ConfigError(f"{path}: {len(octets)} octets are no model of the spam filter")
    magic, size = _HEAD.unpack_from(octets)
    try:
        if magic != MAGIC:
            raise ValueError("another version")
        told: dict[str, Any] = json.loads(bytes(octets[_HEAD.size : _HEAD.size + size]))
        stack = Stack(*(float(each) for each in told["stack"]))
        counts: Sequence[Any] = octets[counts_at:].cast("H")
        return Model(
            octets[start:counts_at].cast("f"), counts[:BUCKETS], counts[BUCKETS:],  # type: ignore[arg-type]
            int(told["spam"]), int(told["ham"]), stack, told["told"],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no model of the spam filter: {error}") from error
