"""Learning: a model from a corpus, and what single messages teach one afterwards.

From a corpus: stochastic gradient descent on the regression, in an order that a fixed seed gives, so that the same
corpus makes the same model; then the stack, on scores of messages that the scoring model had not seen. At some of the
steps a kind of tokens is left out, so that none is leant on alone: mail of another origin may lack it.
"""

import math
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.spam.model import KIND_WEIGHTS, Model, Stack, empty_model, sigmoid
from gateway.spam.tokens import ALL_BUCKETS, Tokens

EPOCHS = 40
FIRST_STEP, LAST_STEP = 1.0, 0.05
LEAST = 3  # messages that a token must have been in
NAIVE = 0.15  # how far a token's own odds scale its weight
LEFT_OUT = 0.5  # of the steps, one kind
FOLDS = 5
MAX_COUNT = 65_535

# Of a single message that a person has judged.
CORRECTIONS = 5  # steps at most, until the filter is sure enough
SURE = 0.95
STEP = 1.0
WEIGHT = 5  # messages that it counts as


@dataclass(frozen=True, slots=True)
class Example:
    """group: messages of one thread or campaign share it, so that none is judged by its likes."""

    tokens: Tokens
    is_spam: bool
    group: str = ""


def train(examples: Sequence[Example], seed: int = 1, progress: Callable[[int, int], None] | None = None) -> Model:
    """progress: told the epochs done, and all there will be."""
    model = empty_model()
    for example in examples:
        _count(model, example.tokens, example.is_spam, 1)
    model.spam = sum(example.is_spam for example in examples)
    model.ham = len(examples) - model.spam
    scale = _scales(examples, model)
    prepared = [_prepared(example, scale, model) for example in examples]
    weights = array("d", bytes(8 * ALL_BUCKETS))
    squares = array("d", (each * each for each in scale))
    order = list(range(len(prepared)))
    shuffler = random.Random(seed)  # noqa: S311  # the order of learning, no secret
    done, steps = 0, max(1, len(prepared) * EPOCHS)
    for epoch in range(EPOCHS):
        shuffler.shuffle(order)
        for number in order:
            step = FIRST_STEP + (LAST_STEP - FIRST_STEP) * done / steps
            left_out = int(shuffler.random() * len(KIND_WEIGHTS) / LEFT_OUT)  # none, where there is no such kind
            _learn(prepared[number], weights, squares, step, left_out)
            done += 1
        if progress is not None:
            progress(epoch + 1, EPOCHS)
    model.weights = array("f", weights)
    return model


@dataclass(frozen=True, slots=True)
class _Prepared:
    """kinds: the buckets that count of each kind, and what they are scaled by."""

    kinds: tuple[tuple[tuple[int, ...], float], ...]
    target: float
    weight: float


def _prepared(example: Example, scale: "array[float]", model: Model) -> _Prepared:
    kinds = tuple(
        (tuple(bucket for bucket in kind if scale[bucket]), weight / math.sqrt(max(1, len(kind))))
        for kind, weight in zip(example.tokens.kinds, KIND_WEIGHTS, strict=True)
    )
    own = model.spam if example.is_spam else model.ham
    return _Prepared(kinds, float(example.is_spam), 0.5 * (model.spam + model.ham) / max(1, own))


def _scales(examples: Sequence[Example], model: Model) -> "array[float]":
    """Of each bucket: nothing for a token that was hardly seen, more for one that tells."""
    in_ham, in_spam = [0] * ALL_BUCKETS, [0] * ALL_BUCKETS
    for example in examples:
        counts = in_spam if example.is_spam else in_ham
        for kind in example.tokens.kinds:
            for bucket in kind:
                counts[bucket] += 1
    scale = array("d", bytes(8 * ALL_BUCKETS))
    for bucket, (ham, spam) in enumerate(zip(in_ham, in_spam, strict=True)):
        if spam + ham >= LEAST:
            odds = math.log((spam + 1) / (model.spam + 2)) - math.log((ham + 1) / (model.ham + 2))
            scale[bucket] = abs(odds) ** NAIVE
    return scale


def _learn(example: _Prepared, weights: "array[float]", squares: "array[float]", step: float, left_out: int) -> None:
    """One step of the descent. left_out: the number of a kind.

    There is no bias: a message that shows nothing is neither, whatever there was more of in the corpus.
    """
    kinds = [kind for number, kind in enumerate(example.kinds) if number != left_out]
    found = sum(scale * sum([weights[bucket] for bucket in kind]) for kind, scale in kinds)
    change = step * example.weight * (example.target - sigmoid(found))
    if abs(change) < 1e-4:
        return
    for kind, scale in kinds:
        own = change * scale
        for bucket in kind:
            weights[bucket] += own * squares[bucket]


def _count(model: Model, tokens: Tokens, is_spam: bool, by: int) -> None:
    counts = model.in_spam if is_spam else model.in_ham
    for kind in tokens.counted:
        for bucket in kind:
            counts[bucket] = max(0, min(MAX_COUNT, counts[bucket] + by))


# --- the stack ----------------------------------------------------------------------------------------------------


def fold_of(group: str, folds: int = FOLDS) -> int:
    """Messages of one group are in one fold."""
    return random.Random(group).randrange(folds)  # noqa: S311  # a partition, no secret


def unseen_scores(examples: Sequence[Example], folds: int = FOLDS) -> list[tuple[float, float]]:
    """Of each example the regression and chi-square of a model that has learnt the other folds."""
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(examples)
    places = [fold_of(example.group, folds) for example in examples]
    for fold in range(folds):
        model = train([example for example, place in zip(examples, places, strict=True) if place != fold])
        for number, place in enumerate(places):
            if place == fold:
                tokens = examples[number].tokens
                found[number] = model.regression(tokens), model.chi(tokens)
    return found


def fit_stack(scores: Iterable[tuple[float, float]], targets: Sequence[bool]) -> Stack:
    """By Newton's method, ham and spam at even odds."""
    rows = [(z, max(c, 0.0) / 10, min(c, 0.0) / 10, 1.0) for z, c in scores]
    size = 4
    spam = max(1, sum(targets))
    ham = max(1, len(targets) - spam)
    weights = [0.5 / spam if target else 0.5 / ham for target in targets]
    found = [0.5, 0.5, 0.5, 0.0]
    for _ in range(50):
        gradient, hessian = [0.0] * size, [[1e-6 * (one == two) for two in range(size)] for one in range(size)]
        for row, target, weight in zip(rows, targets, weights, strict=True):
            chance = sigmoid(sum(a * b for a, b in zip(found, row, strict=True)))
            for one in range(size):
                gradient[one] += weight * (target - chance) * row[one]
                for two in range(size):
                    hessian[one][two] += weight * chance * (1 - chance) * row[one] * row[two]
        step = _solved(hessian, gradient)
        found = [a + b for a, b in zip(found, step, strict=True)]
        if max(map(abs, step)) < 1e-6:
            break
    regression, for_spam, for_ham, base = found
    return Stack(max(0.0, regression), max(0.0, for_spam), max(0.0, for_ham), base)  # more of a sign is never less


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Linear equations, by elimination with the largest pivot."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for at in range(size):
        best = max(range(at, size), key=lambda number: abs(rows[number][at]))
        rows[at], rows[best] = rows[best], rows[at]
        for below in range(at + 1, size):
            share = rows[below][at] / rows[at][at]
            rows[below] = [a - share * b for a, b in zip(rows[below], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        rest = sum(rows[at][number] * found[number] for number in range(at + 1, size))
        found[at] = (rows[at][size] - rest) / rows[at][at]
    return found


# --- what people teach --------------------------------------------------------------------------------------------


def teach(model: Model, tokens: Tokens, *, is_spam: bool) -> None:
    """A message that a person has judged: a few steps until the filter is sure, and counts as of several."""
    _count(model, tokens, is_spam, WEIGHT)
    for _ in range(CORRECTIONS):
        chance = model.probability(tokens)
        if (chance if is_spam else 1 - chance) > SURE:
            break
        change = STEP * (is_spam - chance)
        for kind, scale in zip(tokens.kinds, KIND_WEIGHTS, strict=True):
            own = change * scale / math.sqrt(max(1, len(kind)))
            for bucket in kind:
                model.weights[bucket] += own
