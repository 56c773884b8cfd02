"""The input size of a model, before it is created."""

from __future__ import annotations

from potstill.model_files.open import find
from potstill.models import input_facts
from potstill.stages.recipe import StudentConfig


def own_size(model: str) -> int:
    """Return the input size of a model in pixels, 0 if it accepts any."""
    opened = find(model)
    return max(opened.card.crop) if opened else input_facts.own_size(model)


def of_student(student: StudentConfig) -> int:
    """Return the input size of a student in pixels: as in its settings, else its own; 0 if it accepts any."""
    return student.size or own_size(student.model)
