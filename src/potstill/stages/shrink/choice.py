"""The choice: the smallest candidate that does the job, on validation, and how much choosing flatters it.

The best of many looks better on the images it was chosen on than it is. By how much is estimated by a bootstrap: choose
again on resampled validation images, and compare the choice's accuracy there with that on all images (Efron, "How
biased is the apparent error rate of a prediction rule?", 1986). The test split is free of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill import words
from potstill.stages.shrink.costs import FIGURES, Costed, front
from potstill.stages.shrink.search import Entry, Found
from potstill.stages.shrink.settings import Budgets

TOLERANCE = 1.0  # points of validation accuracy that a smaller model may lose, without limits of size and speed
RESAMPLES = 500


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, why, whether it reaches the target (None without one), and the optimism in points."""

    entry: Entry
    reason: str
    met: bool | None
    optimism: float
    looked_at: int

    def to_json(self) -> dict[str, Any]:
        """Return it for the summary."""
        return {
            "candidate": self.entry.candidate.to_json(),
            "epochs": self.entry.epochs,
            "reason": self.reason,
            "met": self.met,
            "optimism": round(self.optimism, 2),
            "looked_at": self.looked_at,
        }


def size_key(budgets: Budgets) -> str:
    """Return the figure by which small is measured: that of the first limit, or bytes."""
    return FIGURES[next(iter(budgets.limits), "max_bytes")]


def choose(entries: Sequence[Entry], found: Found, budgets: Budgets, teacher: float) -> Choice:
    """Return the choice among candidates that were trained to the end."""
    key, goal = size_key(budgets), budgets.goal.least(teacher)
    accuracy = np.array([found.accuracy(entry.costed) for entry in entries])
    size = np.array([getattr(entry.costed.cost, key) for entry in entries], float)
    number = pick(accuracy, size, goal, bool(budgets.limits))
    entry = entries[number]
    met = None if goal is None else bool(accuracy[number] >= goal)
    flattery = optimism(np.stack([found.correct(each.costed) for each in entries]), size, goal, bool(budgets.limits))
    reason = _reason(accuracy, number, goal, met, bool(budgets.limits))
    return Choice(entry, reason, met, flattery, len(found.short))


def pick(accuracy: np.ndarray, size: np.ndarray, goal: float | None, limited: bool) -> int:
    """Return the position of the chosen candidate.

    With a goal that is reached: the smallest that reaches it. Else the most accurate within the limits, or without
    limits the smallest that is at most `TOLERANCE` points worse. Of equally accurate ones always the smallest.
    """
    if goal is not None and (accuracy >= goal).any():
        allowed = accuracy >= goal
    else:
        allowed = accuracy >= accuracy.max() - (0.0 if limited or goal is not None else TOLERANCE)
    return int(np.lexsort((-accuracy, np.where(allowed, size, np.inf)))[0])


def optimism(correct: np.ndarray, size: np.ndarray, goal: float | None, limited: bool) -> float:
    """Return by how many points the chosen candidate's validation accuracy is too high, from bool [C, N]."""
    random = np.random.default_rng(0)
    every = 100 * correct.mean(axis=1)
    biases = []
    for _ in range(RESAMPLES):
        rows = random.integers(0, correct.shape[1], correct.shape[1])
        resampled = 100 * correct[:, rows].mean(axis=1)
        chosen = pick(resampled, size, goal, limited)
        biases.append(resampled[chosen] - every[chosen])
    return max(float(np.mean(biases)), 0.0)


def _reason(accuracy: np.ndarray, number: int, goal: float | None, met: bool | None, limited: bool) -> str:
    value = words.percent(float(accuracy[number]))
    if met:
        return f"the smallest of those that reach {words.percent(goal or 0)} on validation: {value}"
    if goal is not None:
        return f"none reaches {words.percent(goal)} on validation; the most accurate has {value}"
    if limited:
        return f"the most accurate within the budgets on validation: {value}"
    best = words.percent(float(accuracy.max()))
    return f"the smallest that is at most {TOLERANCE:g} point below the best on validation: {value}, best {best}"


def finalists(entries: Sequence[Entry], found: Found, count: int, budgets: Budgets) -> list[Entry]:
    """Return the candidates of rung 0 to train to the end: networks that are the best at their size.

    With limits, the most accurate ones; without, also smaller ones on the front, from the most accurate downwards.
    """
    key = size_key(budgets)
    ordered = sorted(entries, key=lambda e: (-found.accuracy(e.costed), getattr(e.costed.cost, key)))
    if not budgets.limits:
        ordered = _front_first(ordered, key)
    networks = list(dict.fromkeys(entry.candidate.network for entry in ordered))[:count]
    return [entry for entry in entries if entry.candidate.network in networks]


def _front_first(ordered: list[Entry], key: str) -> list[Entry]:
    """Return candidates that are smaller than every more accurate one first; the order is kept otherwise."""
    least, first, rest = float("inf"), [], []
    for entry in ordered:
        size = getattr(entry.costed.cost, key)
        (first if size < least else rest).append(entry)
        least = min(least, size)
    return [*first, *rest]


def costed_front(entries: Sequence[Entry], found: Found) -> list[Costed]:
    """Return the candidates that no other one beats in validation accuracy and bytes, the smallest first."""
    return front((e.costed for e in entries), {e.candidate.name: found.accuracy(e.costed) for e in entries})
