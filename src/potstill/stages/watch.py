"""Monitoring of distillation: problems that raise no error are noted during training.

Every epoch records the agreement of the student with its teacher on the validation images, and the loss terms are
compared: a term that is a hundred times another one dominates it. A loss that is not finite ends training in the
engine. `distill/findings.py` has the findings after evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.loader import Loader
from potstill.evaluation.metrics import accuracy, agreement, divergence, macro_recall
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.training import loop, predict

DOMINATES = 100.0  # ratio of two loss terms above which the smaller one has hardly any effect


class Watch:
    """Monitors one training; `engine.fit` calls it with the metrics of each epoch.

    teacher: its logits [N, K] for the labelled validation images; None for a control.
    """

    def __init__(self, terms: Sequence[Term], teacher: np.ndarray | None = None) -> None:
        self._weights = {term.title: term.weight for term in terms if term.weight > 0}
        self._teacher = teacher

    def validator(self, data: Data, loader: Loader) -> loop.Validate:
        """Return a function that evaluates a classifier on the validation split, against labels and teacher."""
        rows = data.manifest.rows("validation", labelled=True)

        def validate(classifier: Classifier) -> dict[str, float]:
            logits = predict.predict_logits(classifier, loader, rows)
            label = data.manifest.label[rows]
            metrics = {"accuracy": accuracy(logits, label), "balanced_accuracy": macro_recall(logits, label)}
            if self._teacher is not None and self._teacher.shape == logits.shape:
                metrics |= {
                    "agreement": agreement(self._teacher, logits),
                    "divergence": divergence(self._teacher, logits),
                }
            return metrics

        return validate

    def __call__(self, row: dict[str, Any]) -> str:
        """Note dominated loss terms after the first epoch; return the agreement as text."""
        if row["epoch"] == 1:
            for sentence in dominated(self._weights, row["train"]):
                progress.note(sentence)
        agreement_percent = row.get("validation", {}).get("agreement")
        return "" if agreement_percent is None else f"teacher agreement {agreement_percent:.1f} %"


def dominated(weights: dict[str, float], train: dict[str, float]) -> list[str]:
    """Return a sentence for each weighted term that another one dominates. train: mean of each term over an epoch."""
    weighted = {name: abs(weight * train[name]) for name, weight in weights.items()}
    largest = max(weighted, key=lambda name: weighted[name])
    return [
        f"In the first epoch the weighted loss {largest} was {weighted[largest] / value:,.0f} times {name}, which has "
        "hardly any effect. Change the weights if that is not intended."
        for name, value in weighted.items()
        if 0 < value < weighted[largest] / DOMINATES
    ]
