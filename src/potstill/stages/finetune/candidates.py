"""The choice between several pretrained networks: the out-of-fold accuracy of their linear probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from potstill.errors import DataError
from potstill.evaluation.statistics import proportion_interval
from potstill.stages.finetune.probe import Probe


@dataclass(frozen=True)
class Candidate:
    """A network, and how many of the training images its probe classifies correctly, each while held out of the fit.

    accuracy, interval: percent, with the 95 % Wilson interval.
    """

    model: str
    accuracy: float
    interval: tuple[float, float]
    images: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields, rounded."""
        low, high = self.interval
        return asdict(self) | {"accuracy": round(self.accuracy, 2), "interval": [round(low, 2), round(high, 2)]}

    @property
    def text(self) -> str:
        """Name, accuracy and interval."""
        low, high = self.interval
        return f"{self.model} {self.accuracy:.1f} % ({low:.1f} to {high:.1f})"


def candidate(model: str, fitted: Probe, images: int) -> Candidate:
    """Return the figures of a model's fitted probe; raise `DataError` if there were too few images for folds."""
    trials = [trial for trial in fitted.trials if trial.layer == fitted.layer and trial.penalty == fitted.penalty]
    if not trials:
        raise DataError(
            "Several models are compared by cross-validation, but a class has only one training image or group. Add "
            "images, or give one --model."
        )
    accuracy = trials[0].accuracy
    return Candidate(model, accuracy, proportion_interval(round(accuracy * images / 100), images), images)


def sentence_of(candidates: Sequence[Candidate], kept: Candidate) -> str:
    """Return which network was kept, and the figures of all."""
    listed = ", ".join(each.text for each in candidates)
    return (
        f"Kept {kept.model} of {len(candidates)} networks: the best probe on {kept.images} held-out training images "
        f"(cross-validated accuracy and 95 % interval: {listed})."
    )
