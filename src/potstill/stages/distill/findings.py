"""Where a teacher was not worth having, known once the test split was opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.evaluation.statistics import LOSES


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
