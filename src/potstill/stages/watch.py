"""What goes wrong in distillation without a crash, noted while it happens.

While a student trains, every epoch records how often it agrees with its teacher on the validation images, and the
terms of the loss are compared: a term a hundred times another leaves the other without influence. A loss that is no
longer a number ends the training in the engine. `distill/findings.py` has what is known only at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.loader import Loader
from potstill.evaluation.metrics import accuracy, agreement, divergence
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.training import loop, predict

LOPSIDED = 100.0  # a term so many times another leaves that one without influence


class Watch:
    """Watches every epoch of one training; `engine.fit` calls it with the epoch's row.

    teacher: its logits [N, K] for the labelled validation images; None for a control.
    """

    def __init__(self, terms: Sequence[Term], teacher: np.ndarray | None = None) -> None:
        self._weights = {term.title: term.weight for term in terms if term.weight > 0}
        self._teacher = teacher

    def validator(self, data: Data, loader: Loader) -> loop.Validate:
        """Return a function that measures a classifier on the validation split, against labels and teacher."""
        rows = data.manifest.rows("validation", labelled=True)

        def validate(classifier: Classifier) -> dict[str, float]:
            logits = predict.predict_logits(classifier, loader, rows)
            metrics = {"accuracy": accuracy(logits, data.manifest.label[rows])}
            if self._teacher is not None and self._teacher.shape == logits.shape:
                metrics |= {
                    "agreement": agreement(self._teacher, logits),
                    "divergence": divergence(self._teacher, logits),
                }
            return metrics

        return validate

    def __call__(self, row: dict[str, Any]) -> str:
        """Note terms out of balance after the first epoch; return the agreement in words."""
        if row["epoch"] == 1:
            for sentence in lopsided(self._weights, row["train"]):
                progress.note(sentence)
        agreed = row.get("validation", {}).get("agreement")
        return "" if agreed is None else f"agrees with the teacher {agreed:.1f} %"


def lopsided(weights: dict[str, float], train: dict[str, float]) -> list[str]:
    """Return a sentence where one weighted term of the loss drowns another. train: an epoch's mean of each term."""
    share = {name: abs(weight * train[name]) for name, weight in weights.items()}
    largest = max(share, key=lambda name: share[name])
    return [
        f"In the first epoch the loss {largest}, with its weight, was {share[largest] / value:,.0f} times {name}, "
        f"which hardly counts. Change the weights, unless that is what you want."
        for name, value in share.items()
        if 0 < value < share[largest] / LOPSIDED
    ]
