"""Selection of pseudo-labels by confidence, by distance from the labelled images, and by a quota per class.

Without quotas the classes that a teacher predicts too often displace the rare ones; balancing helps small models most
(arXiv:1911.04252, appendix). Confidences are calibrated, so `min_confidence` is a probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

USED, LOW_CONFIDENCE, OUT_OF_DISTRIBUTION, SURPLUS = range(4)
STATES = ("used", "below min_confidence", "out of distribution", "above the quota of its class")


@dataclass(frozen=True)
class Selection:
    """Which of P images are used. rows: int64, indices below P, repeated for rare classes. state: uint8 [P]."""

    rows: np.ndarray
    state: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return the number of images in each state."""
        return {text: int((self.state == number).sum()) for number, text in enumerate(STATES)}

    def histogram(self, classes: int) -> list[int]:
        """Return the number of used rows of each class, with repetitions."""
        return np.bincount(self.predicted[self.rows], minlength=classes).tolist()


def select(
    probability: np.ndarray,
    distance: np.ndarray,
    prior: np.ndarray,
    *,
    min_confidence: float,
    max_distance: float,
    quota: int | None,
    copies: int,
    most: int,
) -> Selection:
    """Return the selection.

    probability: float [P, K], calibrated. distance: out-of-distribution score, float [P]; images above `max_distance`
    are excluded. prior: labelled images of each class [K]; the quotas are proportional to it, smoothed, unless `quota`
    sets all of them. copies: maximum repetitions of an image. most: maximum number of rows.
    """
    predicted, confidence = probability.argmax(1), probability.max(1)
    state = np.full(len(probability), SURPLUS, np.uint8)
    state[confidence < min_confidence] = LOW_CONFIDENCE
    state[distance > max_distance] = OUT_OF_DISTRIBUTION
    eligible = state == SURPLUS
    quotas = _quotas(prior, min(int(eligible.sum()), most), quota)
    rows = []
    for number, wanted in enumerate(quotas):
        of_class = np.flatnonzero(eligible & (predicted == number))
        of_class = of_class[np.argsort(-confidence[of_class], kind="stable")]
        rows.append(_filled(of_class, wanted, copies))
    chosen = np.concatenate(rows)
    state[chosen] = USED
    return Selection(chosen, state, predicted, confidence)


def _quotas(prior: np.ndarray, total: int, quota: int | None) -> list[int]:
    if quota is not None:
        return [quota] * len(prior)
    exact = total * (prior + 1) / (prior + 1).sum()
    quotas = np.floor(exact).astype(int)
    largest = np.argsort(quotas - exact, kind="stable")[: total - quotas.sum()]
    quotas[largest] += 1  # largest remainders: rounded one by one, quotas below a half would leave no image
    return quotas.tolist()


def _filled(sorted_rows: np.ndarray, wanted: int, copies: int) -> np.ndarray:
    """Return `wanted` rows: those of the highest confidence, or if there are too few, all of them repeatedly."""
    wanted = min(wanted, copies * len(sorted_rows))
    return np.resize(sorted_rows, wanted) if len(sorted_rows) else sorted_rows


def churn(before: np.ndarray, after: np.ndarray) -> float:
    """Return the percentage of images whose label changed between two rounds."""
    return 100.0 * float((before != after).mean()) if len(before) else 0.0
