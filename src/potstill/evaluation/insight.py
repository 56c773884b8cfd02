"""What a model gets right and wrong: confusions, recall by class, calibration, and answering only when confident."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.evaluation import metrics
from potstill.evaluation.statistics import proportion_interval

MATRIX = 30  # with more classes than this only the most frequent confusions are kept, not the matrix
PAIRS = 20
POINTS = 25
LEVELS = (90.0, 95.0, 99.0)


def insight(logits: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures behind an accuracy, of logits [N, K] and labels int64 [N] with the names of the K classes.

    recall: a row for each class that occurs, the lowest first. confusion: `pairs`, the most frequent mistakes, and the
    `matrix` [K][K] (label, prediction) of at most 30 classes. calibration: see `calibration`; thresholds: see there.
    """
    return {
        "recall": recall(logits, label, classes),
        "confusion": confusion(logits, label, classes),
        "calibration": calibration(logits, label),
        "thresholds": thresholds(logits, label),
    }


def recall(logits: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return by class its images, how many are right, the recall in percent and its 95 % interval; the lowest first."""
    matrix = metrics.confusion(logits, label)
    rows = []
    for number, name in enumerate(classes):
        images, right = int(matrix[number].sum()), int(matrix[number, number])
        if images:
            low, high = proportion_interval(right, images)
            row = {"class": name, "images": images, "right": right, "recall": round(100 * right / images, 2)}
            rows.append(row | {"interval": [round(low, 2), round(high, 2)]})
    return sorted(rows, key=lambda row: row["recall"])


def confusion(logits: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return the most frequent mistakes as `pairs` (label, predicted, images), and the `matrix` of few classes."""
    matrix = metrics.confusion(logits, label)
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places = [divmod(int(place), len(classes)) for place in order if wrong.flat[place]]
    pairs = [{"label": classes[i], "predicted": classes[k], "images": int(wrong[i, k])} for i, k in places]
    return {"pairs": pairs} | ({"matrix": matrix.tolist()} if len(classes) <= MATRIX else {})


def calibration(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return the ECE in points and the reliability diagram: confidence and accuracy of each non-empty bin, percent."""
    result = metrics.reliability(logits, label)
    filled = result.count > 0
    return {
        "error": round(result.error, 3),
        "count": result.count[filled].tolist(),
        "confidence": result.confidence[filled].round(2).tolist(),
        "accuracy": result.accuracy[filled].round(2).tolist(),
    }


def thresholds(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return what happens if only the most confident images are answered.

    curve: pairs of the share of images answered and the precision of these answers, percent. at: for 90, 95 and 99 %
    precision, where the accuracy is lower, the largest share with that precision on these images, and the probability
    (0..1) of its least confident one. Equally confident images are answered together.
    """
    confidence, right = metrics.softmax(logits).max(1), metrics.correct(logits, label)
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    answered = ends + 1
    precision = 100 * right.cumsum()[ends] / answered
    share = 100 * answered / len(right)
    shown = np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).astype(int))
    at = []
    for level in LEVELS:
        enough = np.flatnonzero(precision >= level)
        if precision[-1] < level and len(enough):
            last = enough[-1]
            row = {"precision": level, "share": round(float(share[last]), 2), "answered": int(answered[last])}
            at.append(row | {"threshold": round(float(confidence[ends[last]]), 6)})
    curve = [[round(float(share[n]), 2), round(float(precision[n]), 2)] for n in shown]
    return {"images": len(right), "curve": curve, "at": at}
