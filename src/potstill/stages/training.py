"""Training of one classifier in a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.data.loader import Loader, Order
from potstill.evaluation.metrics import accuracy
from potstill.model_files.folder import save_model
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, Term
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, Recipe
from potstill.training import devices, engine, loop, predict


def train(
    recipe: Recipe, config: OneTeacher, data: Data, classifier: Classifier, folder: Path, *, seed: int
) -> dict[str, Any]:
    """Train a teacher on every label of the train split; return its record."""
    inputs = {
        "data": data.manifest.fingerprint,
        "model": classifier.card.model,
        "options": config.options,
        "train": recipe.teacher.train.to_json(),
        "augment": recipe.augment,
        "seed": seed,
    }
    return artifacts.stage(folder, inputs, lambda: _train(recipe, data, classifier, folder, seed))


def _train(recipe: Recipe, data: Data, classifier: Classifier, folder: Path, seed: int) -> dict[str, Any]:
    on = devices.device()
    loader = data.loader(augment=recipe.augment, seed=recipe.seed, device=on)
    config = recipe.teacher.train
    order = Order(data.manifest, batch_size=config.batch_size, seed=seed, views=config.epochs)
    objective = Objective([Term(loss="cross_entropy")], classes=len(data.manifest.classes), teacher=None)
    fitted = engine.fit(
        classifier.to(on), objective, loader, order, config,
        folder=folder, seed=seed, validate=validator(data, loader), title="teacher",
    )  # fmt: skip
    save_model(classifier, folder)
    return fitted.to_json()


def validator(data: Data, loader: Loader) -> loop.Validate:
    """Return a function that measures a classifier on the validation split."""
    rows = data.manifest.rows("validation", labelled=True)

    def validate(classifier: Classifier) -> dict[str, float]:
        logits = predict.predict_logits(classifier, loader, rows)
        return {"accuracy": accuracy(logits, data.manifest.label[rows])}

    return validate
