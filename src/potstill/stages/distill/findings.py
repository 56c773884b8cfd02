"""Findings after evaluation of the test split: distillation that did not help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.evaluation.statistics import LOSES


def findings(
    teacher: float | None,
    students: Sequence[float],
    controls: Sequence[float],
    verdict: dict[str, Any],
    *,
    name: str = "the student",
) -> list[str]:
    """Return notes on a finished experiment. Accuracies are in percent on the test split."""
    student, control = float(np.mean(students)), float(np.mean(controls))
    title = name[0].upper() + name[1:]
    sentences = []
    if teacher is not None and teacher < control:
        sentences.append(
            f"The teacher ({teacher:.2f} %) is less accurate than the control without a teacher ({control:.2f} %). "
            "Train it longer, or use a more accurate one."
        )
    elif teacher is not None and teacher < student:
        sentences.append(
            f"{title} ({student:.2f} %) is more accurate than its teacher ({teacher:.2f} %). This is possible, but may "
            "mean that the teacher was not trained long enough."
        )
    if verdict["result"] == LOSES:
        sentences.append(
            f"{title} is less accurate than its control: distillation reduced accuracy. Use the control, or try a "
            "lower temperature, more weight on the labels or a larger student."
        )
    return sentences
