"""The input size that a model brings along."""

from __future__ import annotations

from potstill.model_files.open import find
from potstill.models import input_facts


def own_size(model: str) -> int:
    """Return the input size, in pixels, of a model that comes with one, else 0."""
    opened = find(model)
    return max(opened.card.crop) if opened else input_facts.own_size(model)
