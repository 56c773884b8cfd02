"""It only gets better: fine-tuning must beat the probe by more than the luck of the validation images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from potstill.words import plural

PROBE, TUNED = "probe", "tuned"
ROUNDING = 1e-9  # one image won and none lost is a difference of exactly one standard error


@dataclass(frozen=True)
class Choice:
    """Which model was kept. probe, tuned: validation accuracy in percent; difference and standard_error in points."""

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


def choose(probe: np.ndarray, tuned: np.ndarray) -> Choice:
    """Return the choice between two models, bool [N] each: whether they are right on the validation images.

    The standard error is that of the paired difference: images on which both agree tell nothing.
    """
    gain = tuned.astype(float) - probe.astype(float)
    count = len(gain)
    difference, error = 100 * float(gain.mean()), 100 * float(gain.std(ddof=min(1, count - 1)) / np.sqrt(count))
    kept = TUNED if difference > error * (1 + ROUNDING) else PROBE
    images = plural(count, "validation image")
    told = f"by {abs(difference):.2f} points, with a standard error of {error:.2f} ({images})"
    if kept == TUNED:
        sentence = f"Fine-tuning was kept: it beats the probe {told}."
    elif difference > 0:
        sentence = f"The probe was kept: fine-tuning is ahead {told}, which may be luck."
    else:
        how = "ties with the probe" if difference == 0 else f"is behind {told}"
        sentence = f"The probe was kept: fine-tuning {how}."
    return Choice(kept, 100 * float(probe.mean()), 100 * float(tuned.mean()), difference, error, count, sentence)
