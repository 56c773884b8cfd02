"""Labels that look wrong, found by probabilities of a model that was not trained on the images.

Confident learning (Northcutt, Jiang, Chuang 2021, arXiv:1911.00068): an image counts as one of class k if its
probability of k reaches the mean probability of k over the images labelled k. Images that count as another class than
their label are the suspicious ones; their share, by class of the label, estimates the share of wrong labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from potstill.evaluation import metrics
from potstill.evaluation.statistics import proportion_interval

TRUSTED = 90.0  # percent: accuracy below which a model's disagreement says little of the labels
FEWEST = 5  # images of a class below which its threshold is not known


def label_errors(logits: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return the estimate for labels int64 [N] by the logits [N, K] of a model that was not trained on these images.

    images; accuracy, of the model, percent; and if that is at least 90: suspicious, how many labels look wrong, and
    share, percent of all, with its 95 % interval. The estimate is no better than the model: its own consistent mistakes
    count as wrong labels, so that of a weaker model says more about the model.
    """
    accuracy = metrics.accuracy(logits, label)
    result: dict[str, Any] = {"images": len(label), "accuracy": round(accuracy, 2)}
    if accuracy < TRUSTED:
        return result
    rows, _ = suspicious(metrics.softmax(logits), label)
    low, high = proportion_interval(len(rows), len(label))
    share, interval = round(100 * len(rows) / len(label), 2), [round(low, 2), round(high, 2)]
    return result | {"suspicious": len(rows), "share": share, "interval": interval}


def suspicious(probability: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images whose labels look wrong, the most suspicious first, and the class that each looks like.

    probability: [N, K], of a model that was not trained on the images. Ordered by the probability of the label minus
    that of the other class, which is the most negative where the model is sure that the label is wrong.
    """
    images, classes = probability.shape
    own = probability[np.arange(images), label]
    count = np.bincount(label, minlength=classes)
    mean = np.bincount(label, weights=own, minlength=classes) / np.maximum(count, 1)
    least = np.where(count >= FEWEST, mean - 1e-9, np.inf)  # a class that nearly never occurs takes no images of others
    reached = np.where(probability >= least, probability, -1.0)
    looks = reached.argmax(1)
    wrong = np.flatnonzero((reached.max(1) >= 0) & (looks != label))
    margin = own[wrong] - probability[wrong, looks[wrong]]
    order = np.argsort(margin, kind="stable")
    return wrong[order], looks[wrong[order]]
