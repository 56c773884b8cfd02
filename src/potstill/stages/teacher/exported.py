"""A teacher that is an exported file: one of potstill, or any ONNX file that the recipe describes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts, progress
from potstill.artifacts import sha256
from potstill.errors import ConfigError
from potstill.model_files.onnx import OnnxModel, describe
from potstill.model_files.runtimes import SUFFIXES, open_exported
from potstill.models.class_map import some
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import CardConfig, OneTeacher
from potstill.stages.teacher.input_size import own_size
from potstill.stages.teacher.prepared import Kind, Preparation, TeacherSource, match, record_of
from potstill.stages.teacher.replay import ReplayedTeacher


@dataclass(frozen=True, eq=False, kw_only=True)
class OnnxTeacher(ReplayedTeacher):
    """An exported file (ONNX, OpenVINO, ExecuTorch), which has logits and no features. file: its path."""

    file: Path

    def deployed(self, export: Callable[[Classifier], Path]) -> Path:
        """Return the file itself."""
        return self.file


def described_onnx(config: OneTeacher, data: Data) -> OnnxModel:
    """Return a foreign ONNX file with its `card` from the recipe; raise `ConfigError` if that has no classes."""
    card = config.card or CardConfig()
    if not card.classes:
        raise ConfigError(
            f"teacher.card.classes: {config.model} does not name the classes of its outputs. List them in the order of "
            f"the outputs; the data has {some(data.manifest.classes, 10)}."
        )
    channels = len(card.mean or card.std or (0,) * data.channels)
    if card.mean is None or card.std is None:
        progress.note(f"teacher.card has no mean or no std: using the defaults 0 and 1 for {config.model}.")
    mean, std = card.mean or (0.0,) * channels, card.std or (1.0,) * channels
    size: dict[str, Any] = {"size": card.size} if card.size else {}
    full = describe(Path(config.model), classes=card.classes, mean=mean, std=std, **size)
    probabilities = None if card.output is None else card.output == "probabilities"
    return OnnxModel(Path(config.model), card=full, probabilities=probabilities)


def _prepare(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    file = Path(config.model)
    model = described_onnx(config, data) if _is_foreign(config) else open_exported(file)
    matched = match(model, config, data)
    foreign = isinstance(model, OnnxModel) and model.foreign
    own = sha256(file)
    # The logits of a foreign file also depend on the preprocessing in its card.
    identity = matched.identity(artifacts.fingerprint([own, model.card.to_json()]) if foreign else own)
    inputs = {"data": data.manifest.fingerprint, "teacher": identity}
    record = artifacts.stage(work.folder, inputs, lambda: record_of(matched.model, data))
    return OnnxTeacher(
        model=matched.model,
        file=file,
        card=matched.model.card,
        identity=identity,
        title=f"Loaded the teacher from {config.model}",
        record=record,
        known=matched.class_map.known,
        facts=matched.facts,
    )


def _is_foreign(config: OneTeacher) -> bool:
    return config.card is not None and Path(config.model).suffix == ".onnx"


def _own_size(config: OneTeacher) -> int:
    if config.card is None or not _is_foreign(config):
        return own_size(config.model)
    return max(config.card.size) if config.card.size else 0


KIND = Kind(lambda config: Path(config.model).suffix in SUFFIXES, _own_size, _prepare)
