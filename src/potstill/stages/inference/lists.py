"""Lists of the available models, and of the layers of a model."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from potstill.errors import ModelError
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.catalogue import list_models, matching
from potstill.models.inspect.layer_table import describe_layers
from potstill.models.outputs import Classifier


def models(pattern: str, most: int) -> dict[str, Any]:
    """Return up to `most` models that match a pattern, and the number of matches."""
    count = len(matching(pattern))
    if not count:
        raise ModelError(f"No model matches '{pattern}'. `potstill models '*' --most 2000` lists all.")
    rows = [dataclasses.asdict(row) for row in itertools.islice(list_models(pattern), most)]
    return {"pattern": pattern, "count": count, "models": rows}


def layers(model: str, depth: int) -> list[dict[str, Any]]:
    """Return the layers of a model, by name or from a folder, in the order of execution."""
    opened = find(model)
    if opened is not None and not isinstance(opened, Classifier):
        raise ModelError(f"{model} is an exported file: its layers have no names. Give the stage folder it came from.")
    classifier = opened or zoo.create(model, classes=tuple(str(number) for number in range(10)))
    return [dataclasses.asdict(layer) for layer in describe_layers(classifier, depth=depth)]
