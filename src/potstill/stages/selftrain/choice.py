"""It only gets better: the pool must help on held-out images by more than the standard error, or it is not kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from potstill.words import plural

COARSE = 2.0  # points of standard error from which on gains that are worth having are missed


@dataclass(frozen=True)
class Choice:
    """Whether the pool helped. with_pool, without: the rows compared; accuracies in percent, on held-out images."""

    helped: bool
    kept: str
    with_pool: str
    without: str
    accuracy: float
    accuracy_without: float
    difference: float
    standard_error: float
    images: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields, rounded."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


def gain(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return (difference, standard error) in points, of bool [S, N]: whether each seed is right on each image.

    The error is that of the paired difference over images, after the mean over seeds.
    """
    each = after.astype(float).mean(0) - before.astype(float).mean(0)
    return 100 * float(each.mean()), 100 * float(each.std(ddof=min(1, len(each) - 1)) / np.sqrt(len(each)))


def choose(without: dict[str, np.ndarray], with_pool: dict[str, np.ndarray], *, validation: int = 0) -> Choice:
    """Return the choice between rows trained without the pool and with it.

    bool [S, N] by name: whether models that had not learned from an image are right about it. The first `validation`
    columns are the rows' own, those behind come from crossfitted pairs (0: all are the rows' own). Of the rows without
    the pool the best counts, of equal ones the simpler. Of those with it the last counts, unless an earlier one is
    better by more than the standard error: each learned from the one before it.
    """
    plain = max(without, key=lambda name: without[name].mean())
    count = without[plain].shape[1]
    before = 100 * float(without[plain].mean())
    if not with_pool:
        sentence = "The unlabelled images did not help: none of them could be used; kept the model without them."
        return Choice(False, plain, "", plain, before, before, 0.0, 0.0, count, sentence)
    last = _last(with_pool)
    difference, error = gain(with_pool[last], without[plain])
    helped = difference > error + 1e-9  # one image that tips has a standard error of just its own weight
    told = _told(difference, error, validation or count, count)
    sentence = (
        f"The unlabelled images helped ({told}); kept {last}."
        if helped
        else f"The unlabelled images did not help ({told}); kept the model without them, {plain}."
    )
    if not helped and error > COARSE:
        sentence += f" So few labels cannot show a gain below {error:.0f} points: more of them would tell."
    after = 100 * float(with_pool[last].mean())
    return Choice(helped, last if helped else plain, last, plain, after, before, difference, error, count, sentence)


def _told(difference: float, error: float, validation: int, count: int) -> str:
    where = plural(validation, "validation image")
    if count > validation:
        where += f" and {plural(count - validation, 'label')}, crossfitted"
    return f"{difference:+.2f} points, standard error {error:.2f}, on {where}".replace("-", "\N{MINUS SIGN}")


def _last(rows: dict[str, np.ndarray]) -> str:
    names = list(rows)
    kept = names[0]
    for name in names[1:]:
        difference, error = gain(rows[name], rows[kept])
        kept = name if difference >= -error - 1e-9 else kept
    return kept
