"""The choice between models with and without the pool: the gain on held-out images must exceed its standard error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from potstill.words import plural, signed

COARSE = 2.0  # points of standard error above which a note says that useful gains cannot be detected


@dataclass(frozen=True)
class Choice:
    """Whether the pool helped. with_pool, without: the compared rows; accuracies in percent, on held-out images."""

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
    """Return (difference, standard error) in points. after, before: bool [S, N], correct predictions by seed and image.

    The standard error is that of the paired difference over images, after the mean over seeds. Both are rounded to 1e-9
    points: one image that differs is exactly one standard error.
    """
    each = after.astype(float).mean(0) - before.astype(float).mean(0)
    error = each.std(ddof=min(1, len(each) - 1)) / np.sqrt(len(each))
    return round(100 * float(each.mean()), 9), round(100 * float(error), 9)


def choose(without: dict[str, np.ndarray], with_pool: dict[str, np.ndarray], *, validation: int = 0) -> Choice:
    """Return the choice between rows trained without the pool and with it.

    without, with_pool: bool [S, N] by name, correct predictions on images that the models were not trained on. The
    first `validation` columns are of the rows' own models, the others of cross-fitted pairs (0: all are of their own).
    The best row without the pool is compared (the simplest of equal ones) with the last row with it, or with an earlier
    one that is better by more than the standard error: each was trained with labels of the one before it.
    """
    plain = max(without, key=lambda name: without[name].mean())
    count = without[plain].shape[1]
    before = 100 * float(without[plain].mean())
    if not with_pool:
        sentence = "The unlabelled images did not help: none could be used; kept the model without them."
        return Choice(False, plain, "", plain, before, before, 0.0, 0.0, count, sentence)
    last = _last(with_pool)
    difference, error = gain(with_pool[last], without[plain])
    helped = difference > error + 1e-9  # a difference of one image equals its standard error
    figures = _figures(difference, error, validation or count, count)
    sentence = (
        f"The unlabelled images helped ({figures}); kept {last}."
        if helped
        else f"The unlabelled images did not help ({figures}); kept the model without them, {plain}."
    )
    if not helped and error > COARSE:
        sentence += f" Gains below {error:.0f} points cannot be detected with so few labels; add labels to detect them."
    after = 100 * float(with_pool[last].mean())
    return Choice(helped, last if helped else plain, last, plain, after, before, difference, error, count, sentence)


def _figures(difference: float, error: float, validation: int, count: int) -> str:
    where = plural(validation, "validation image")
    if count > validation:
        where += f" and {plural(count - validation, 'cross-fitted label')}"
    return f"{signed(difference, 2)} points, standard error {error:.2f}, on {where}"


def _last(rows: dict[str, np.ndarray]) -> str:
    names = list(rows)
    kept = names[0]
    for name in names[1:]:
        difference, error = gain(rows[name], rows[kept])
        kept = name if difference >= -error - 1e-9 else kept
    return kept
