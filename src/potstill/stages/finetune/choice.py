"""The choice between probe and fine-tuned model: the gain on validation must exceed its standard error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from potstill.words import plural, signed

PROBE, TUNED = "probe", "tuned"
ROUNDING = 1e-9  # a difference of one image equals its standard error


@dataclass(frozen=True)
class Choice:
    """The kept model. probe, tuned: validation accuracy in percent, balanced where that was compared.

    difference and standard_error: in points.
    """

    kept: str
    probe: float
    tuned: float
    difference: float
    standard_error: float
    images: int
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields, rounded."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


def choose(
    probe: np.ndarray, tuned: np.ndarray, *, image: str = "validation image", weight: np.ndarray | None = None
) -> Choice:
    """Return the choice between two models. probe, tuned: correct predictions on held-out images, bool [N].

    The standard error is that of the paired difference. image: the noun for one of them, in the sentence. weight: of
    each image, float64 [N] with the mean 1 (`class_weights`), to compare balanced accuracies.
    """
    if weight is not None:
        probe, tuned = probe * weight, tuned * weight
    gain = tuned.astype(float) - probe.astype(float)
    count = len(gain)
    difference, error = 100 * float(gain.mean()), 100 * float(gain.std(ddof=min(1, count - 1)) / np.sqrt(count))
    kept = TUNED if difference > error * (1 + ROUNDING) else PROBE
    points = "points" if weight is None else "points of balanced accuracy"
    figures, images = f"{signed(difference, 2)} {points}, standard error {error:.2f}", plural(count, image)
    if kept == TUNED:
        sentence = f"Kept the fine-tuned model: it beats the linear probe on {images} ({figures})."
    else:
        sentence = f"Kept the linear probe: fine-tuning was not measurably better on {images} ({figures})."
    return Choice(kept, 100 * float(probe.mean()), 100 * float(tuned.mean()), difference, error, count, sentence)
