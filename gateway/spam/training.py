"""Learning: a model from a corpus, and what single messages teach one afterwards.

From a corpus: stochastic gradient descent on the regression, in an order that a fixed seed gives, so that the same
corpus makes the same model; then the stack, on scores of messages that the scoring model had not seen.
"""

import math
import random
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.spam.model import KIND_WEIGHTS, Model, Stack, empty_model, sigmoid
from gateway.spam.tokens import BUCKETS, Tokens

EPOCHS = 25
FIRST_STEP, LAST_STEP = 4.0, 0.2
LEAST = 2  # messages that a token must have been in
NAIVE = 0.3  # how far a token's own odds scale its weight
FOLDS = 5
MAX_COUNT = 65_535

# Of a single message that a person has judged.
CORRECTIONS = 5  # steps at most, until the filter is sure enough
SURE = 0.95
STEP = 2.0
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
    scale = _scales(model)
    prepared = [_prepared(example, scale, model) for example in examples]
    weights = array("d", bytes(8 * BUCKETS))
    squares = array("d", (each * each for each in scale))
    order = list(range(len(prepared)))
    shuffler = random.Random(seed)  # noqa: S311  # the order of learning, no secret
    done, steps = 0, max(1, len(prepared) * EPOCHS)
    for epoch in range(EPOCHS):
        shuffler.shuffle(order)
        for number in order:
            step = FIRST_STEP + (LAST_STEP - FIRST_STEP) * done / steps
            model.bias += _learn(prepared[number], weights, squares, model.bias, step)
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


def _scales(model: Model) -> "array[float]":
    """Of each bucket: nothing for a token that was hardly seen, more for one that tells."""
    scale = array("d", bytes(8 * BUCKETS))
    for bucket in range(BUCKETS):
        spam, ham = model.in_spam[bucket], model.in_ham[bucket]
        if spam + ham >= LEAST:
            odds = math.log((spam + 1) / (model.spam + 2)) - math.log((ham + 1) / (model.ham + 2))
            scale[bucket] = abs(odds) ** NAIVE
    return scale


def _learn(example: _Prepared, weights: "array[float]", squares: "array[float]", bias: float, step: float) -> float:
    """One step of the descent; what the bias changes by."""
    found = bias + sum(scale * sum([weights[bucket] for bucket in kind]) for kind, scale in example.kinds)
    change = step * example.weight * (example.target - sigmoid(found))
    if abs(change) < 1e-4:
        return 0.0
    for kind, scale in example.kinds:
        own = change * scale
        for bucket in kind:
            weights[bucket] += own * squares[bucket]
    return 0.1 * change


def _count(model: Model, tokens: Tokens, is_spam: bool, by: int) -> None:
    counts = model.in_spam if is_spam else model.in_ham
    for kind in tokens.kinds:
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
    rows = [(z, c / 10, 1.0) for z, c in scores]
    spam = max(1, sum(targets))
    ham = max(1, len(targets) - spam)
    weights = [0.5 / spam if target else 0.5 / ham for target in targets]
    found = [0.5, 0.5, 0.0]
    for _ in range(30):
        gradient, hessian = [0.0] * 3, [[1e-6 * (one == two) for two in range(3)] for one in range(3)]
        for row, target, weight in zip(rows, targets, weights, strict=True):
            chance = sigmoid(sum(a * b for a, b in zip(found, row, strict=True)))
            for one in range(3):
                gradient[one] += weight * (target - chance) * row[one]
                for two in range(3):
                    hessian[one][two] += weight * chance * (1 - chance) * row[one] * row[two]
        step = _solved(hessian, gradient)
        found = [a + b for a, b in zip(found, step, strict=True)]
        if max(map(abs, step)) < 1e-6:
            break
    return Stack(*found)


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Three equations, by Cramer's rule."""

    def determinant(m: list[list[float]]) -> float:
        return (
            m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
        )

    whole = determinant(matrix)
    out = []
    for column in range(3):
        swapped = [[right[row] if at == column else matrix[row][at] for at in range(3)] for row in range(3)]
        out.append(determinant(swapped) / whole)
    return out


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
