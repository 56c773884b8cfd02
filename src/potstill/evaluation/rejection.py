"""When a model should answer "unsure": a threshold on its confidence with a guarantee for what it answers.

`choose` takes the confidences and the mistakes on validation images. It tests thresholds in a fixed sequence, from the
strictest downwards, each by the exact one-sided binomial (Clopper-Pearson) bound at the full level, and stops at the
first that fails: fixed-sequence testing needs no correction for the number of thresholds (arXiv:2110.01052, section
3.2; selection with guaranteed risk: arXiv:1705.08500). The sequence counts images, not labels: the most confident k
images, for k that depend only on the number of images. Whenever mistakes are not more frequent at higher confidence,
the chance that the precision of the chosen threshold is below the required one is at most 5 %: if N images lie above
the threshold at which the precision is exactly the required one, the first k that must not pass is the first above N,
and has at least as many mistakes as as many images at that precision.

Images must be independent of each other and of those that the model was trained on, and like those that come later.
`answers` checks a chosen threshold on other images, which needs no assumption about the confidences.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv

from potstill.words import count, plural

SURE = 0.95
"""Confidence level of every bound."""
STEP = 1.05
"""Each threshold answers this many times as many images as the one before."""
ROOM = 2
"""Mistakes that the strictest threshold allows, if that leaves half of the images for others."""
UNSURE = "unsure"
"""The answer instead of a class."""

REQUIREMENT = re.compile(r"\s*precision\s*>=\s*(?P<number>\d*\.?\d+)\s*(?P<percent>%?)\s*")


@dataclass(frozen=True)
class Answers:
    """What a model with a threshold does on images: it answers some, of which some are right.

    at_least: one-sided lower bound of the precision at 95 % confidence, 0..1.
    """

    threshold: float
    images: int
    answered: int
    right: int
    at_least: float

    @property
    def sentence(self) -> str:
        """The same in words."""
        return (
            f"Of what it answers, at least {_floored(self.at_least)} % is right ({100 * SURE:g} % sure, n = "
            f"{count(self.answered)}); it answers {100 * self.answered / self.images:.0f} % of the images."
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def required_precision(text: str) -> float:
    """Return 0.99 for "precision>=0.99" or "precision>=99%"; raise `ValueError` for anything else."""
    match = REQUIREMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a requirement that potstill knows. Write it like precision>=0.99.")
    precision = float(match["number"]) / (100 if match["percent"] else 1)
    if not 0 < precision < 1:
        raise ValueError(f"'{text}' must be above 0 and below 1: no finite number of images proves precision>=1.")
    return precision


def lower_bound(right: int, n: int, sure: float = SURE) -> float:
    """Return the one-sided Clopper-Pearson lower bound of a share of which `right` of `n` were seen; 0 for none.

    With all right it is (1 - sure) ** (1 / n).
    """
    return float(betaincinv(right, n - right + 1, 1 - sure)) if right else 0.0


def needed(precision: float, wrong: int = 0) -> int:
    """Return the fewest images of which `wrong` may be wrong and the bound still is at least `precision`."""
    low, high = wrong, wrong + 1
    while lower_bound(high - wrong, high) < precision:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lower_bound(middle - wrong, middle) >= precision else (middle, high)
    return high


def choose(confidence: np.ndarray, correct: np.ndarray, precision: float) -> Answers | None:
    """Return the lowest threshold that passes, with its bound on these images; None if not even the strictest passes.

    confidence: float [N], of the class that the model names; it answers where this is at least the threshold.
    correct: bool [N], whether the class is right. precision: required share of right answers, 0..1.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(np.asarray(correct, bool)[order])
    threshold = None
    for answered in _sequence(len(confidence), precision):
        with_equals = int(np.searchsorted(-ranked, -ranked[answered - 1], side="right"))
        if lower_bound(int(right[with_equals - 1]), with_equals) < precision:
            break
        threshold = float(ranked[answered - 1])
    return None if threshold is None else answers(confidence, correct, threshold)


def _sequence(images: int, precision: float) -> list[int]:
    """Return the numbers of most confident images that are tested, smallest first; none if there are too few images."""
    starts = [needed(precision, wrong) for wrong in range(ROOM + 1)]
    fitting = [start for start in starts if start <= images / 2] or [start for start in starts[:1] if start <= images]
    if not fitting:
        return []
    numbers, number = [], float(fitting[-1])
    while number < images:
        numbers.append(round(number))
        number *= STEP
    return [*numbers, images]


def answers(confidence: np.ndarray, correct: np.ndarray, threshold: float) -> Answers:
    """Return what a model with this threshold does on images; arguments as in `choose`."""
    answered = confidence >= threshold
    n, right = int(answered.sum()), int(np.asarray(correct, bool)[answered].sum())
    return Answers(threshold, len(confidence), n, right, lower_bound(right, n))


def too_few(images: int, precision: float, what: str) -> str | None:
    """Return the sentence of a refusal where no result on so many images could prove the precision; else None."""
    least = needed(precision)
    if images >= least:
        return None
    return (
        f"precision>={precision:g} cannot be proved with {plural(images, what)}: even if all were right, only "
        f"{_floored(lower_bound(images, images))} % would be sure. It needs at least {count(least)} that are answered "
        "without a mistake. Label more images, or require less."
    )


def _floored(share: float) -> str:
    """Return a share in percent, rounded down to a tenth: a bound must not be rounded up."""
    return f"{np.floor(1000 * share) / 10:.1f}"
