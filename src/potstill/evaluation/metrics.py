"""Metrics of logits: accuracy, recall, calibration, agreement.

Every evaluation in the project (a teacher, a student, an exported file, a prediction store) uses these functions, so
that figures with the same name are computed the same way. Logits are [N, K] of any float type, labels are integers
[N]; rows labelled -100 are unlabelled and left out. Shares are percent (0..100), losses are nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IGNORED = -100  # the value of data/manifest.UNLABELLED, which is on the same floor
CHI_SQUARE = 3.841  # the 95th percentile of one degree of freedom
BINS = 15  # the number of bins with which expected calibration errors are usually published


def _labelled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that have a label."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    assert logits.ndim == 2 and labels.shape == logits.shape[:1], (logits.shape, labels.shape)
    kept = labels != IGNORED
    assert kept.any(), "no row has a label"
    return logits[kept], labels[kept].astype(np.int64)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return log probabilities float64 [N, K] of `logits / temperature`; large logits do not overflow."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities float64 [N, K]; a higher temperature makes them softer (arXiv:1503.02531)."""
    return np.exp(log_softmax(logits, temperature))


def correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return bool [labelled rows]: whether the top class is the label. `statistics.compare` takes these."""
    logits, labels = _labelled(logits, labels)
    return logits.argmax(axis=1) == labels


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the percentage of labelled rows whose top class is the label."""
    return 100.0 * float(correct(logits, labels).mean())


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the percentage of labelled rows whose label is among the `k` top classes.

    Among classes with equal logits the one with the lower number ranks higher, as in `argmax`.
    """
    logits, labels = _labelled(logits, labels)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return 100.0 * float((rank < k).mean())


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the confusion matrix, int64 [K, K]: how often an image of class `row` was predicted as `column`."""
    logits, labels = _labelled(logits, labels)
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class_recall(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float64 [K]: the recall of each class in percent; nan where no row has the class."""
    matrix = confusion(logits, labels)
    images = matrix.sum(axis=1)
    return np.divide(100.0 * matrix.diagonal(), images, out=np.full(len(matrix), np.nan), where=images > 0)


def macro_recall(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean recall of the classes that occur, percent: every class counts the same, however rare."""
    return float(np.nanmean(per_class_recall(logits, labels)))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean of -log(probability of the label), in nats."""
    logits, labels = _labelled(logits, labels)
    return -float(np.take_along_axis(log_softmax(logits, temperature), labels[:, None], axis=1).mean())


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram (arXiv:1706.04599): accuracy as a function of confidence.

    Attributes:
        edges: float64 [B + 1], edges of the confidence bins, percent; a bin includes its upper edge.
        count: int64 [B], images in each bin.
        confidence: float64 [B], mean probability of the top class, percent; nan where a bin is empty.
        accuracy: float64 [B], accuracy of the bin's images, percent; nan where a bin is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: mean gap of confidence and accuracy, in points (0 is perfect)."""
        filled = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[filled]
        return float(gap @ self.count[filled] / self.count.sum())


def reliability(logits: np.ndarray, labels: np.ndarray, *, temperature: float = 1.0, bins: int = BINS) -> Reliability:
    """Return the reliability diagram in `bins` bins of equal width, of the logits divided by `temperature`."""
    logits, labels = _labelled(logits, labels)
    probability = softmax(logits, temperature)
    confidence = probability.max(axis=1)
    is_correct = probability.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    position = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(position, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = 100.0 * np.bincount(position, weights=values, minlength=bins)
        return np.divide(sums, count, out=np.full(bins, np.nan), where=count > 0)

    return Reliability(100.0 * edges, count, mean(confidence), mean(is_correct))


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, *, temperature: float = 1.0, bins: int = BINS
) -> float:
    """Return the ECE in points (0..100): 3 means 90 % confidence with 87 % accuracy, on average over the bins."""
    return reliability(logits, labels, temperature=temperature, bins=bins).error


def fit_temperature(logits: np.ndarray, labels: np.ndarray, *, low: float = 0.01, high: float = 100.0) -> float:
    """Return the temperature in `low`..`high` whose softmax gives the labels the highest likelihood.

    The likelihood has a single peak in the temperature, so a bounded scalar search finds it (arXiv:1706.04599).
    Fit it on validation, never on test. If every row is correct the optimum is 0, and `low` is returned.
    """
    from scipy.optimize import minimize_scalar

    result = minimize_scalar(
        lambda exponent: negative_log_likelihood(logits, labels, float(np.exp(exponent))),
        bounds=(np.log(low), np.log(high)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(result.x))


def calibration_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature that calibrates logits, fitted on validation; None if they do not show that one is needed.

    Of ten images a fitted temperature is nearly arbitrary, and makes calibrated probabilities worse. It is used only if
    a likelihood-ratio test rejects a temperature of 1 at 5 % (Wilks 1938), and not if every row is correct, where the
    optimum is 0.
    """
    if correct(logits, labels).all():
        return None
    temperature = fit_temperature(logits, labels)
    gain = negative_log_likelihood(logits, labels) - negative_log_likelihood(logits, labels, temperature)
    return round(temperature, 4) if 2 * len(labels) * gain > CHI_SQUARE else None


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Return the percentage of rows of two logits arrays [N, K] with the same top class, labelled or not."""
    one, other = np.asarray(one), np.asarray(other)
    assert one.shape == other.shape, (one.shape, other.shape)
    return 100.0 * float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> float:
    """Return the mean KL(teacher || student) of the softmax at `temperature`, in nats, without a T^2 factor."""
    target = log_softmax(teacher, temperature)
    return float((np.exp(target) * (target - log_softmax(student, temperature))).sum(axis=1).mean())
