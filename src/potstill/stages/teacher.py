"""The teacher of a run: trained here, loaded with weights, taken from an earlier run, or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts, engine, progress
from potstill.data.loader import Loader, Order
from potstill.data.manifest import UNLABELLED
from potstill.engine import Model
from potstill.errors import ModelError
from potstill.measure.metrics import accuracy
from potstill.models import facts, zoo
from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.models.onnx import OnnxModel
from potstill.models.outputs import Classifier
from potstill.objective import Objective, Term
from potstill.stages.data import Data
from potstill.stages.recipe import Recipe
from potstill.store import Store
from potstill.teachers import LiveTeacher, StoredTeacher, Teacher


@dataclass(frozen=True)
class Taught:
    """A teacher ready to teach: its model, its card, and how it came to be."""

    model: Model
    card: Card
    identity: str
    title: str
    record: dict[str, Any]
    folder: Path | None = None


def own_size(model: str) -> int:
    """Return the input size, in pixels, of a model that comes with one, else 0."""
    found = find(model)
    return max(found.card.crop) if found else facts.own_size(model)


def find(model: str) -> Classifier | OnnxModel | None:
    """Return the model at a path (a run, a stage folder, an .onnx file); None where `model` is a name."""
    path = Path(model)
    if path.suffix == ".onnx":
        return OnnxModel(path)
    return zoo.load(path) if path.is_dir() else None


def prepare(recipe: Recipe, data: Data, folder: Path) -> Taught:
    """Return the recipe's teacher, training it first where it has no weights."""
    config, classes = recipe.teacher, data.manifest.classes
    found = find(config.model)
    if found is not None:
        if tuple(found.card.classes) != classes:
            raise ModelError(_classes_differ(config.model, found.card.classes, classes))
        return Taught(found, found.card, found.card.weights_sha256, f"Took the teacher from {config.model}", {})
    classifier = data.model(config.model, weights=config.weights, options=config.options, seed=recipe.seed)
    if config.weights:
        record = artifacts.stage(
            folder, {"data": classes, "weights": classifier.card.weights_sha256}, lambda: _keep(classifier, folder)
        )
        title = f"Loaded the teacher's weights from {Path(config.weights).name}"
        return Taught(classifier, classifier.card, classifier.card.weights_sha256, title, record, folder)
    record = train(recipe, data, classifier, folder)
    trained = zoo.load(folder)
    title = f"Trained the teacher {config.model} for {config.train.epochs} epochs"
    return Taught(trained, trained.card, trained.card.weights_sha256, title, record, folder)


def _keep(classifier: Classifier, folder: Path) -> dict[str, Any]:
    zoo.save(classifier, folder)
    return {"seconds": 0.0}


def train(recipe: Recipe, data: Data, classifier: Classifier, folder: Path) -> dict[str, Any]:
    """Train the teacher on every label of the train split; return its record."""
    config = recipe.teacher.train
    inputs = {
        "data": data.manifest.fingerprint,
        "model": classifier.card.model,
        "options": recipe.teacher.options,
        "train": config.to_json(),
        "augment": recipe.augment,
        "seed": recipe.seed,
    }
    return artifacts.stage(folder, inputs, lambda: _train(recipe, data, classifier, folder))


def _train(recipe: Recipe, data: Data, classifier: Classifier, folder: Path) -> dict[str, Any]:
    on = engine.device()
    loader = data.loader(augment=recipe.augment, seed=recipe.seed, device=on)
    config = recipe.teacher.train
    order = Order(data.manifest, batch_size=config.batch_size, seed=recipe.seed, views=config.epochs)
    objective = Objective([Term(loss="cross_entropy")], classes=len(data.manifest.classes), teacher=None)
    fitted = engine.fit(
        classifier.to(on), objective, loader, order, config,
        folder=folder, seed=recipe.seed, validate=validator(data, loader), title="teacher",
    )  # fmt: skip
    zoo.save(classifier, folder)
    return fitted.to_json()


def validator(data: Data, loader: Loader) -> engine.Validate:
    """Return a function that measures a classifier on the validation split."""
    rows = data.manifest.rows("validation", labelled=True)

    def validate(classifier: Classifier) -> dict[str, float]:
        logits = engine.predict_logits(classifier, loader, rows)
        return {"accuracy": accuracy(logits, data.manifest.label[rows])}

    return validate


def as_function(recipe: Recipe, taught: Taught, data: Data, stores: Path, *, taps: Sequence[Tap] = ()) -> Teacher:
    """Return the teacher as `Batch -> Outputs`: stored for every view the student will see, or live.

    taps: where its features are wanted, which are never stored.
    """
    on = engine.device()
    if isinstance(taught.model, Classifier):
        taught.model.to(on)
    loader = data.loader(augment=recipe.augment, seed=recipe.seed, device=on)
    precision = engine.resolve_precision("auto", on, taught.model)
    if taps and recipe.teacher.stored:
        progress.note("Features are not stored: the teacher is asked again in every step, which takes longer.")
    if taps or not recipe.teacher.stored:
        if not isinstance(taught.model, Classifier):
            return live_function(taught.model)
        return LiveTeacher(taught.model.replace(taps=tuple(taps)), precision=precision)
    rows = data.manifest.rows("train")
    source = {
        "teacher": taught.identity,
        "normalisation": [list(taught.card.mean), list(taught.card.std), list(taught.card.size)],
        "images": pixels_fingerprint(data),
        "views": loader.view.fingerprint,
        "precision": precision,
    }
    name = artifacts.fingerprint(source)[:12]
    store = Store(stores / f"teacher-{name}", rows, recipe.view_count, source)
    if not store.complete:
        size = len(rows) * recipe.view_count * len(data.manifest.classes) * 2
        if size > 2e9:
            progress.note(f"The teacher's answers will take {size / 1e9:.1f} GB; fewer `views` take less.")
        engine.fill_store(store, taught.model, loader, precision=precision)
    return StoredTeacher(store)


def live_function(model: Model) -> Teacher:
    """Return a teacher that is an exported file."""
    from potstill.teachers import mixed

    return lambda batch: mixed(model(batch.image), batch.mix)


def pixels_fingerprint(data: Data) -> str:
    """Return the fingerprint of the images, whatever their labels: labels do not change what a teacher says."""
    unlabelled = np.full(len(data.manifest), UNLABELLED)
    return data.manifest.with_labels(unlabelled).fingerprint


def _classes_differ(model: str, theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    missing = [name for name in ours if name not in theirs]
    if len(theirs) != len(ours):
        return (
            f"The teacher {model} knows {len(theirs)} classes and the data has {len(ours)}. "
            f"Not known to the teacher: {', '.join(missing[:5]) or 'none'}. Give a teacher trained on these classes."
        )
    return (
        f"The teacher {model} and the data name their classes differently: {', '.join(theirs[:5])}, ... against "
        f"{', '.join(ours[:5])}, ... Rename the class folders, or give a teacher trained on these classes."
    )
