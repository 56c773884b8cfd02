"""Which pseudo-labels are learned from: sure enough, not strange, and of every class as many as there should be.

Without quotas a teacher's favourite classes crowd out the rare ones; balancing helps small models most
(arXiv:1911.04252, appendix). Confidences are calibrated, so the floor means what it says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

USED, UNSURE, STRANGE, SURPLUS = range(4)
STATES = ("used", "not sure enough", "unlike the labelled images", "more than enough of its class")


@dataclass(frozen=True)
class Selection:
    """Which of P images are learned from. rows: int64, places in 0..P, repeated for rare classes. state: uint8 [P]."""

    rows: np.ndarray
    state: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def counts(self) -> dict[str, int]:
        """Return how many images are in each state."""
        return {text: int((self.state == number).sum()) for number, text in enumerate(STATES)}

    def histogram(self, classes: int) -> list[int]:
        """Return how many rows of each class are learned from, repetitions counted."""
        return np.bincount(self.predicted[self.rows], minlength=classes).tolist()


def select(
    chance: np.ndarray, strange: np.ndarray, prior: np.ndarray, *, floor: float, far: float, quota: int | None,
    copies: int, most: int,
) -> Selection:  # fmt: skip
    """Return the selection.

    chance: float [P, K], calibrated. strange: float [P], above `far` an image is left out. prior: labelled images of
    each class [K]; the quotas are in its proportion, smoothed, unless `quota` is given for all. most: rows in all.
    """
    predicted, confidence = chance.argmax(1), chance.max(1)
    state = np.full(len(chance), SURPLUS, np.uint8)
    state[confidence < floor] = UNSURE
    state[strange > far] = STRANGE
    eligible = state == SURPLUS
    quotas = _quotas(prior, min(int(eligible.sum()), most), quota)
    rows = []
    for number, wanted in enumerate(quotas):
        mine = np.flatnonzero(eligible & (predicted == number))
        mine = mine[np.argsort(-confidence[mine], kind="stable")]
        rows.append(_filled(mine, wanted, copies))
    chosen = np.concatenate(rows)
    state[chosen] = USED
    return Selection(chosen, state, predicted, confidence)


def _quotas(prior: np.ndarray, total: int, quota: int | None) -> list[int]:
    if quota is not None:
        return [quota] * len(prior)
    share = (prior + 1) / (prior + 1).sum()
    return np.rint(share * total).astype(int).tolist()


def _filled(sorted_rows: np.ndarray, wanted: int, copies: int) -> np.ndarray:
    """Return `wanted` rows: the surest, or where there are too few, all of them several times."""
    wanted = min(wanted, copies * len(sorted_rows))
    return np.resize(sorted_rows, wanted) if len(sorted_rows) else sorted_rows


def churn(before: np.ndarray, after: np.ndarray) -> float:
    """Return the percentage of images whose label changed between two rounds."""
    return 100.0 * float((before != after).mean()) if len(before) else 0.0
