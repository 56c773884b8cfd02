"""A student that starts from a folder: a pruned network that is taught again, or one that learned something before."""

from __future__ import annotations

from potstill.errors import ConfigError, ModelError
from potstill.model_files.open import find
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig


def from_folder(config: StudentConfig, data: Data) -> Classifier | None:
    """Return the model in the folder that `student.model` names; None where it is a name."""
    found = find(config.model)
    if found is None:
        return None
    if not isinstance(found, Classifier):
        raise ModelError(f"student.model is the exported file {config.model}. Give the folder that it came from.")
    if config.weights or config.options:
        raise ConfigError(f"student.model is the folder {config.model}, which has weights and options of its own.")
    if tuple(found.card.classes) != tuple(data.manifest.classes):
        raise ModelError(
            f"The student in {config.model} tells apart {', '.join(found.card.classes[:5])}, ... and the data holds "
            f"{', '.join(data.manifest.classes[:5])}, ...: these must be the same classes in the same order."
        )
    return found.with_card(found.card.replace(resize=data.resize, crop=data.crop)).train()


def start_of(config: StudentConfig) -> dict[str, str]:
    """Return what tells the weights in a student's folder from others that lay there earlier."""
    found = find(config.model)
    return {} if found is None else {"start": found.card.weights_sha256}
