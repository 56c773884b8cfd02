"""It only gets better: the pool must help on validation by more than its standard error, or its model is not kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

COARSE = 2.0  # points of standard error from which on validation misses gains that are worth having


@dataclass(frozen=True)
class Choice:
    """Whether the pool helped. with_pool, without: names of the best rows and their validation accuracy in percent."""

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


def choose(without: dict[str, np.ndarray], with_pool: dict[str, np.ndarray]) -> Choice:
    """Return the choice between rows trained without the pool and with it; bool [S, N] on validation, by name.

    Of equal rows the earlier, simpler one counts as the better.
    """
    plain, best = _best(without), _best(with_pool) if with_pool else ""
    before = 100 * float(without[plain].mean())
    if not best:
        sentence = "The unlabelled images did not help: none of them could be used; kept the model without them."
        return Choice(False, plain, "", plain, before, before, 0.0, 0.0, without[plain].shape[1], sentence)
    difference, error = gain(with_pool[best], without[plain])
    helped = difference > error + 1e-9  # one image that tips has a standard error of just its own weight
    count = without[plain].shape[1]
    told = f"{difference:+.2f} points on validation, standard error {error:.2f}, {count} images"
    told = told.replace("-", "\N{MINUS SIGN}")
    sentence = (
        f"The unlabelled images helped ({told}); kept {best}."
        if helped
        else f"The unlabelled images did not help ({told}); kept the model without them, {plain}."
    )
    if not helped and error > COARSE:
        sentence += f" So few validation images cannot show a gain below {error:.0f} points: more labels would tell."
    after = 100 * float(with_pool[best].mean())
    return Choice(helped, best if helped else plain, best, plain, after, before, difference, error, count, sentence)


def _best(rows: dict[str, np.ndarray]) -> str:
    return max(rows, key=lambda name: rows[name].mean())
