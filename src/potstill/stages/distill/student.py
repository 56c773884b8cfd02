"""A student that starts from the model in a folder, such as a pruned network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.artifacts import sha256
from potstill.errors import ConfigError, ModelError
from potstill.model_files.open import find
from potstill.models import packages
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig


def from_folder(config: StudentConfig, data: Data) -> Classifier | None:
    """Return the model in the folder `student.model`; None if it is the name of an architecture."""
    model = find(config.model)
    if model is None:
        return None
    if not isinstance(model, Classifier):
        raise ModelError(
            f"student.model is the exported file {config.model}, which cannot be trained. Give the folder that it came "
            "from."
        )
    if config.weights or config.options or config.size:
        raise ConfigError(
            f"student.model is the folder {config.model}, which has weights, options and an input size of its own. "
            "Leave out student.weights, student.options and student.size."
        )
    if tuple(model.card.classes) != tuple(data.manifest.classes):
        raise ModelError(
            f"The classes of the student in {config.model} are {', '.join(model.card.classes[:5])}, ... and those of "
            f"the data {', '.join(data.manifest.classes[:5])}, ...: they must be the same, in the same order."
        )
    model = model.with_card(model.card.replace(reject={}, device={}))
    return data.shown_to(model).train()


def identity_of(config: StudentConfig) -> dict[str, Any]:
    """Return the settings of a student, with the digest of its initial weights instead of their folder or file.

    So a run folder that was copied or moved, whose trainings start from each other, is the same.
    """
    settings = config.to_json()
    model = find(config.model)
    if model is not None:
        return settings | {"model": None, "start": model.card.weights_sha256}
    file = packages.resolved(config.model, config.weights)
    if isinstance(file, Path) and file.is_file():
        return settings | {"weights": None, "start": sha256(file)}
    return settings
