"""The input size of a model."""

from __future__ import annotations

from potstill.model_files.open import find
from potstill.models import input_facts


def own_size(model: str) -> int:
    """Return the input size of a model in pixels, 0 if it accepts any."""
    opened = find(model)
    return max(opened.card.crop) if opened else input_facts.own_size(model)
