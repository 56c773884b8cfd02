"""The teacher of a run: trained here, loaded, taken from elsewhere as a model or as answers, or several of these."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.open import find
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.models.weights import sha256
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, Recipe
from potstill.stages.teacher import from_file, mutual, soft_labels
from potstill.stages.teacher.ensemble import ensemble
from potstill.stages.teacher.input_size import is_soft_labels
from potstill.stages.teacher.prepared import Taught, _identity, matching, measured
from potstill.stages.training import train
from potstill.teachers.prediction_files import is_answers
from potstill.training.predict import Model


def prepare_teacher(recipe: Recipe, data: Data, folder: Path) -> Taught:
    """Return the recipe's teacher: one or an ensemble; trained first where it has no weights.

    folder: of the teacher; those of an ensemble have numbered folders in it.
    """
    config = recipe.teacher
    if config.mutual:
        return mutual.peer(recipe, data)
    if config.ensemble:
        members = tuple(
            one(each, recipe, data, folder / str(number), seed=recipe.seed + number - 1)
            for number, each in enumerate(config.ensemble, 1)
        )
        return ensemble(config, members, data)
    return one(config, recipe, data, folder, seed=recipe.seed)


def one(config: OneTeacher, recipe: Recipe, data: Data, folder: Path, *, seed: int) -> Taught:
    """Return one teacher; seed: of one that is trained here.

    Raises `ConfigError` for classes that do not fit the data's.
    """
    if is_answers(config.model):
        return from_file.given(config, data)
    if is_soft_labels(config.model):
        return soft_labels.taught(config, data)
    foreign = config.card is not None and config.model.endswith(".onnx")
    found = from_file.described(config, data) if foreign else find(config.model)
    if found is not None:
        made = matching(found, config, data)
        title = f"Took the teacher from {config.model}"
        identity = _identity(_own_identity(found, config), found, made)
        record = artifacts.stage(folder, {"data": data.manifest.fingerprint, "teacher": identity},
                                 lambda: measured(made.model, data))  # fmt: skip
        return dataclasses.replace(made, identity=identity, title=title, record=record)
    return _named(config, recipe, data, folder, seed)


def _own_identity(found: Model, config: OneTeacher) -> str:
    """Return what decides the answers of a model: its weights, and for a foreign file how images are shown to it."""
    if isinstance(found, Classifier):
        return bits(found)
    own = sha256(Path(config.model))
    foreign = isinstance(found, OnnxModel) and found.foreign
    return artifacts.fingerprint([own, found.card.to_json()]) if foreign else own


def _named(config: OneTeacher, recipe: Recipe, data: Data, folder: Path, seed: int) -> Taught:
    """Return a network by name, with its weights or trained here."""
    if not config.weights:
        classifier = data.model(config.model, options=config.options, seed=seed)
        record = train(recipe, config, data, classifier, folder, seed=seed)
        trained = load_model(folder)
        title = f"Trained the teacher {config.model} for {recipe.teacher.train.epochs} epochs"
        return Taught(trained, trained.card, trained.card.weights_sha256, title, record, folder)
    classes = (config.card and config.card.classes) or data.manifest.classes
    theirs = dataclasses.replace(data, manifest=dataclasses.replace(data.manifest, classes=classes))
    classifier = theirs.model(config.model, weights=config.weights, options=config.options, seed=seed)
    made = matching(classifier, config, data)
    weights = classifier.card.weights_sha256
    inputs = {"data": data.manifest.fingerprint, "weights": weights, "map": made.facts.get("map")}
    record = artifacts.stage(folder, inputs, lambda: _keep(classifier, made.model, data, folder))
    title = f"Loaded the teacher's weights from {Path(config.weights).name}"
    identity = _identity(weights, classifier, made)
    return dataclasses.replace(made, identity=identity, title=title, record=record, folder=folder)


def _keep(classifier: Classifier, model: Classifier, data: Data, folder: Path) -> dict[str, Any]:
    save_model(classifier, folder)
    return measured(model, data)
