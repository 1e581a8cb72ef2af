"""How well the embedded filter tells spam from ham: cross-validated on a corpus sorted as ham/SOURCE and spam/SOURCE.

    python -m bench.spam_accuracy CORPUS        A: folds by thread; B: whole sources unseen; calibration

Recall is of spam, at a rate of false positives among the ham of the same test; with few ham 0.1 % is one or none.
"""

import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from gateway.spam.corpus import sources_in
from gateway.spam.model import Stack, sigmoid
from gateway.spam.training import Example, fit_stack, train, unseen_scores

RATES = (0.0, 0.001, 0.005, 0.01)
SPLITS = {
    "B1: learnt from 2002-2010, tried on 2016-2026": {"asf-ham", "usrp-ham", "pot-spam"},
    "B2: usrp-ham and pot-spam unseen": {"usrp-ham", "pot-spam"},
    "B3: asf-ham and pot-spam unseen": {"asf-ham", "pot-spam"},
    "B4: csdmc unseen": {"csdmc-ham", "csdmc-spam"},
}


def recalls(scores: Sequence[float], targets: Sequence[bool]) -> list[float]:
    ham = sorted((score for score, target in zip(scores, targets, strict=True) if not target), reverse=True)
    spam = [score for score, target in zip(scores, targets, strict=True) if target]
    found = []
    for rate in RATES:
        allowed = int(rate * len(ham))
        threshold = ham[allowed] if allowed < len(ham) else -1e9
        found.append(100 * sum(score > threshold for score in spam) / max(1, len(spam)))
    return found


def shown(name: str, scores: Sequence[float], targets: Sequence[bool]) -> None:
    figures = " / ".join(f"{each:5.1f}" for each in recalls(scores, targets))
    print(f"{name:50} {figures}   ({len(targets) - sum(targets)} ham, {sum(targets)} spam)")


def combined(stack: Stack, scores: Sequence[tuple[float, float]]) -> list[float]:
    return [stack.logit(z, c) for z, c in scores]


def main(corpus: Path) -> None:
    started = time.process_time()
    found = list(sources_in(corpus))
    each_ms = 1000 * (time.process_time() - started) / len(found)
    print(f"{len(found)} messages, {each_ms:.2f} ms each to parse and tokenise")
    print(f"{'recall in % at false positives of':50} {' / '.join(f'{100 * rate:3.1f} %' for rate in RATES)}")
    examples = [example for _, example in found]
    targets = [example.is_spam for example in examples]
    scores = unseen_scores(examples)
    stack = fit_stack(scores, targets)
    logits = combined(stack, scores)
    shown("A: five folds by thread", logits, targets)
    shown("A: the regression alone", [z for z, _ in scores], targets)
    shown("A: chi-square alone", [c for _, c in scores], targets)
    _calibration(logits, targets)
    for name, unseen in SPLITS.items():
        _split(name, found, unseen, stack)
    _without_pot(found)


def _split(name: str, found: list[tuple[str, Example]], unseen: set[str], stack: Stack) -> None:
    model = train([example for source, example in found if source not in unseen])
    model.stack = stack
    tried = [example for source, example in found if source in unseen]
    shown(name, [model.logit(example.tokens) for example in tried], [example.is_spam for example in tried])


def _without_pot(found: list[tuple[str, Example]]) -> None:
    """The model that ships: what it says of phishing that it has never seen."""
    examples = [example for source, example in found if source != "pot-spam"]
    targets = [example.is_spam for example in examples]
    scores = unseen_scores(examples)
    stack = fit_stack(scores, targets)
    logits = combined(stack, scores)
    shown("shipped model: five folds by thread", logits, targets)
    model = train(examples)
    model.stack = stack
    pot = [model.logit(example.tokens) for source, example in found if source == "pot-spam"]
    ham = [logit for logit, target in zip(logits, targets, strict=True) if not target]
    shown("shipped model: phishing of 2022-2025, unseen", [*pot, *ham], [True] * len(pot) + [False] * len(ham))
    for chance in (0.5, 0.9, 0.99):
        wrong = sum(sigmoid(logit) >= chance for logit in ham)
        right = sum(sigmoid(logit) >= chance for logit in pot)
        share = 100 * right / max(1, len(pot))
        print(f"  at {chance}: {wrong} of {len(ham)} ham wrong, {share:.1f} % of that phishing found")
    print("  stack", stack)


def _calibration(logits: Sequence[float], targets: Sequence[bool]) -> None:
    """At even odds: each spam and each ham weighed by how many there are."""
    spam, ham = sum(targets), len(targets) - sum(targets)
    edges = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0001)
    for low, high in pairwise(edges):
        inside = [target for logit, target in zip(logits, targets, strict=True) if low <= sigmoid(logit) < high]
        weight = sum(inside) / spam + (len(inside) - sum(inside)) / ham
        if weight:
            share = sum(inside) / spam / weight
            print(f"  said {low:.2f} to {min(high, 1):.2f}: {len(inside)} messages, spam at even odds {share:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
