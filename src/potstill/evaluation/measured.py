"""The figures of a model on a split, with the same names in the summary of every stage (docs/summary.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.evaluation import metrics
from potstill.evaluation.statistics import mcnemar, percent_interval, proportion_interval

BALANCED = ("balanced_accuracy", "worst_recall")


def measured(
    logits: np.ndarray,
    label: np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    reference: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return the figures of logits [N, K] against labels int64 [N].

    accuracy and its 95 % Wilson interval (percent), balanced_accuracy and worst_recall (mean and lowest recall of the
    classes that occur, percent), images (N), loss (cross-entropy, nats), calibration_error (ECE,
    points); with `classes` (names, K) also the recall of each class that occurs (percent). With `reference`, logits
    [N, K] of the model from which this one was derived: see `compared`.
    """
    correct = metrics.correct(logits, label)
    result: dict[str, Any] = {
        "accuracy": round(metrics.accuracy(logits, label), 3),
        "interval": _rounded(proportion_interval(int(correct.sum()), len(label))),
        **_of_classes(logits, label),
        "images": len(label),
        "loss": round(float(metrics.negative_log_likelihood(logits, label)), 4),
        "calibration_error": round(float(metrics.expected_calibration_error(logits, label)), 2),
    }
    if classes is not None:
        recall = metrics.per_class_recall(logits, label)
        result["recall"] = {n: round(float(r), 2) for n, r in zip(classes, recall, strict=True) if np.isfinite(r)}
    return result if reference is None else result | compared(logits, label, reference)


def _of_classes(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    recall = metrics.per_class_recall(logits, label)
    return dict(zip(BALANCED, (round(float(np.nanmean(recall)), 3), round(float(np.nanmin(recall)), 3)), strict=True))


def compared(logits: np.ndarray, label: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return the differences between a model and the one from which it was derived: logits [N, K] on the same images.

    lost: accuracy of the reference minus its own (points, negative for a gain); p: p value of McNemar's test; and
    `parity`.
    """
    lost = metrics.accuracy(reference, label) - metrics.accuracy(logits, label)
    p = mcnemar(metrics.correct(reference, label), metrics.correct(logits, label))
    return {"lost": round(lost, 3), "p": round(p, 4), **parity(logits, reference)}


def parity(logits: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return agreement (images with the same top class, percent) and max_logit_difference of two logits [N, K]."""
    return {
        "agreement": round(float(metrics.agreement(reference, logits)), 3),
        "max_logit_difference": float(f"{np.abs(reference - logits).max():.3g}"),
    }


def over_seeds(logits: Sequence[np.ndarray], label: np.ndarray) -> dict[str, Any]:
    """Return the figures of models that differ only in their seed, logits [N, K] each.

    test_accuracy: one per seed, percent. accuracy: their mean; interval: Student's t over seeds, for a single seed the
    95 % Wilson interval over images. The other figures are means over seeds.
    """
    each = [measured(one, label) for one in logits]
    accuracy = [one["accuracy"] for one in each]
    interval = percent_interval(accuracy)
    return {
        "test_accuracy": accuracy,
        "accuracy": round(float(np.mean(accuracy)), 3),
        "interval": each[0]["interval"] if interval is None else _rounded(interval),
        **{name: round(float(np.mean([one[name] for one in each])), 3) for name in BALANCED},
        "images": len(label),
        "loss": round(float(np.mean([one["loss"] for one in each])), 4),
        "calibration_error": round(float(np.mean([one["calibration_error"] for one in each])), 2),
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(float(bound), 2) for bound in interval]
