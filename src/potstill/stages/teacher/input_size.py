"""The input size that a teacher or student brings along."""

from __future__ import annotations

from pathlib import Path

from potstill import artifacts
from potstill.model_files.open import find
from potstill.models import input_facts
from potstill.stages.recipe import OneTeacher, TeacherConfig
from potstill.teachers.prediction_files import is_answers


def own_size(model: str) -> int:
    """Return the input size, in pixels, of a model that comes with one, else 0."""
    found = find(model)
    return max(found.card.crop) if found else input_facts.own_size(model)


def size_of(config: TeacherConfig) -> int:
    """Return the largest input size, in pixels, of the teachers that come with one, else 0."""
    return max(_size(one) for one in (config.ensemble or (config,)))


def _size(config: OneTeacher) -> int:
    if is_answers(config.model):
        return 0
    if is_soft_labels(config.model):
        return artifacts.read_json(Path(config.model) / "labels.json")["own_size"]
    if config.card and config.card.size and Path(config.model).suffix == ".onnx":
        return max(config.card.size)
    return 0 if config.card and Path(config.model).suffix == ".onnx" else own_size(config.model)


def is_soft_labels(model: str) -> bool:
    """Tell whether a path is a folder that `potstill label` wrote."""
    return (Path(model) / "labels.json").is_file()
