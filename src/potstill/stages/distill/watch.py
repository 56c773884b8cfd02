"""Guard rails: what goes wrong in distillation without a crash, told while it happens and again at the end.

While a student trains, every epoch records how often it agrees with its teacher on the validation images, and the
terms of the loss are compared: a term a hundred times another leaves the other without a say. A loss that is no
longer a number ends the training in the engine. Afterwards the findings say where a teacher was not worth having.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.loader import Loader
from potstill.evaluation.metrics import accuracy, agreement, divergence
from potstill.evaluation.statistics import LOSES
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.training import loop, predict

LOPSIDED = 100.0  # a term so many times another leaves that one without a say


class Watch:
    """Looks at every epoch of one training; `engine.fit` calls it with the epoch's row.

    teacher: what it says of the labelled validation images, logits [N, K]; None for a control.
    """

    def __init__(self, terms: Sequence[Term], teacher: np.ndarray | None = None) -> None:
        self._weights = {term.title: term.weight for term in terms if term.weight > 0}
        self._teacher = teacher

    def validator(self, data: Data, loader: Loader) -> loop.Validate:
        """Return a function that measures a classifier on the validation split, against labels and teacher."""
        rows = data.manifest.rows("validation", labelled=True)

        def validate(classifier: Classifier) -> dict[str, float]:
            logits = predict.predict_logits(classifier, loader, rows)
            found = {"accuracy": accuracy(logits, data.manifest.label[rows])}
            if self._teacher is not None and self._teacher.shape == logits.shape:
                found |= {
                    "agreement": agreement(self._teacher, logits),
                    "divergence": divergence(self._teacher, logits),
                }
            return found

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
        f"which has next to no say. Change the weights, unless that is what you want."
        for name, value in share.items()
        if 0 < value < share[largest] / LOPSIDED
    ]


def findings(
    teacher: float | None, students: Sequence[float], controls: Sequence[float], verdict: dict[str, Any],
    *, name: str = "the student",
) -> list[str]:  # fmt: skip
    """Return what a reader should know of a finished experiment. Accuracies are in percent on the test split."""
    student, control = float(np.mean(students)), float(np.mean(controls))
    title = name[0].upper() + name[1:]
    found = []
    if teacher is not None and teacher < control:
        found.append(
            f"The teacher ({teacher:.2f} %) is worse than the control that learned without it ({control:.2f} %): "
            "it had little to teach. Train it longer, or take a better one."
        )
    elif teacher is not None and teacher < student:
        found.append(
            f"{title} ({student:.2f} %) is better than its teacher ({teacher:.2f} %). That happens, and may mean that "
            "the teacher was trained for too short."
        )
    if verdict["result"] == LOSES:
        found.append(
            f"{title} is worse than its control: this distillation did harm. A lower temperature, more weight on the "
            "labels or a larger student may help; the control is the model to use."
        )
    return found
