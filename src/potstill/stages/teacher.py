"""The teacher of a run: trained here, loaded, taken from elsewhere as a model or as answers, or several of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import artifacts, engine, progress
from potstill.answers import is_answers
from potstill.data.loader import Loader, Order
from potstill.engine import Model
from potstill.measure.metrics import accuracy
from potstill.models import facts, zoo
from potstill.models.card import Card
from potstill.models.class_map import ClassMap, described, match_classes, speaking
from potstill.models.freeze import bits
from potstill.models.onnx import OnnxModel
from potstill.models.outputs import Classifier
from potstill.models.weights import sha256
from potstill.objective import Objective, Term
from potstill.stages.data import Data
from potstill.stages.evaluation import answers as asked
from potstill.stages.recipe import OneTeacher, Recipe, TeacherConfig
from potstill.stages.use import find
from potstill.teachers import GivenTeacher, Teacher, averaged


@dataclass(frozen=True)
class Taught:
    """A teacher ready to teach, and how it came to be.

    model: speaks of the data's classes; None where there is nothing that could be asked about new images. given:
    answers from a file. labels: makes a teacher of soft labels stored earlier, in so many `views`. peer: makes the
    network that learns beside the student of a seed. members, weights, average: of an ensemble. known: the classes of
    the data that it knows, None for all. facts: what the summary says of it besides.
    """

    model: Model | None
    card: Card
    identity: str
    title: str
    record: dict[str, Any]
    folder: Path | None = None
    given: GivenTeacher | None = None
    labels: Callable[[Recipe, Data], Teacher] | None = None
    views: int | None = None
    peer: Callable[[int], Classifier] | None = None
    members: tuple[Taught, ...] = ()
    weights: tuple[float, ...] = ()
    average: str = "probabilities"
    known: tuple[int, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def said(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] for clean images; None where it cannot tell."""
        if self.model is not None:
            return asked(self.model, data, rows)
        chosen = torch.from_numpy(rows)
        if self.given is not None and bool(self.given.covers(chosen).all()):
            return self.given.of(chosen).numpy()
        parts = [member.said(data, rows) for member in self.members]
        if not parts or any(part is None for part in parts):
            return None
        return averaged([torch.from_numpy(part) for part in parts], self.weights, self.average).numpy()


# -- where it is found ---------------------------------------------------------------------------------------------


def own_size(model: str) -> int:
    """Return the input size, in pixels, of a model that comes with one, else 0."""
    found = find(model)
    return max(found.card.crop) if found else facts.own_size(model)


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


# -- making it ready -----------------------------------------------------------------------------------------------


def prepare(recipe: Recipe, data: Data, folder: Path) -> Taught:
    """Return the recipe's teacher: one or an ensemble, at the end of its chain; trained first where it has no weights.

    folder: of the teacher; those of an ensemble have numbered folders in it, and a chain lies beside it.
    """
    from potstill.stages import chain, several

    config = recipe.teacher
    if config.mutual:
        return several.peer(recipe, data)
    if config.ensemble:
        first = several.ensemble(recipe, data, folder)
    else:
        first = one(config, recipe, data, folder, seed=recipe.seed)
    return chain.climb(recipe, data, first, folder.parent)


def one(config: OneTeacher, recipe: Recipe, data: Data, folder: Path, *, seed: int) -> Taught:
    """Return one teacher; seed: of one that is trained here.

    Raises `ConfigError` for classes that do not fit the data's.
    """
    from potstill.stages import elsewhere, label

    if is_answers(config.model):
        return elsewhere.given(config, data)
    if is_soft_labels(config.model):
        return label.taught(config, data)
    foreign = config.card is not None and config.model.endswith(".onnx")
    found = elsewhere.described(config, data) if foreign else find(config.model)
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


def _identity(own: str, found: Model, made: Taught) -> str:
    return own if found is made.model else artifacts.fingerprint([own, made.card.classes, made.facts["map"]])


def matching(found: Model, config: OneTeacher, data: Data) -> Taught:
    """Return a model that speaks of the data's classes; the rest of it is filled in by the caller."""
    ours, who = data.manifest.classes, f"The teacher {config.model}"
    class_map = class_map_of(found.card.classes, config, data)
    model = speaking(found, class_map, ours)
    told = {} if class_map.is_identity else {"map": class_map.columns}
    tell(class_map, found.card.classes, ours, who)
    return Taught(model, model.card, "", "", {}, known=class_map.known, facts=told)


def class_map_of(theirs: tuple[str, ...], config: OneTeacher, data: Data) -> ClassMap:
    return match_classes(theirs, data.manifest.classes, config.class_map, who=f"The teacher {config.model}")


def tell(class_map: ClassMap, theirs: tuple[str, ...], ours: tuple[str, ...], who: str) -> None:
    """Note how the classes were matched, where they differ."""
    sentence = described(class_map, theirs, ours, who=who)
    if sentence:
        progress.note(sentence)


def _named(config: OneTeacher, recipe: Recipe, data: Data, folder: Path, seed: int) -> Taught:
    """Return a network by name, with its weights or trained here."""
    if not config.weights:
        classifier = data.model(config.model, options=config.options, seed=seed)
        record = train(recipe, config, data, classifier, folder, seed=seed)
        trained = zoo.load(folder)
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
    zoo.save(classifier, folder)
    return measured(model, data)


def measured(model: Model, data: Data) -> dict[str, Any]:
    """Return the record of a teacher that was not trained here: its accuracy on the validation images."""
    rows = data.manifest.rows("validation", labelled=True)
    return record_of(asked(model, data, rows), data, rows)


def record_of(logits: np.ndarray, data: Data, rows: np.ndarray) -> dict[str, Any]:
    found = accuracy(logits, data.manifest.label[rows])
    if found < 150 / len(data.manifest.classes):
        progress.note(
            f"The teacher is right about only {found:.1f} % of the validation images, hardly more than guessing. Are "
            "its classes in another order, or its images normalised otherwise?"
        )
    return {"seconds": 0.0, "validation_accuracy": {"last": round(found, 3)}}


# -- training it ---------------------------------------------------------------------------------------------------


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
    on = engine.device()
    loader = data.loader(augment=recipe.augment, seed=recipe.seed, device=on)
    config = recipe.teacher.train
    order = Order(data.manifest, batch_size=config.batch_size, seed=seed, views=config.epochs)
    objective = Objective([Term(loss="cross_entropy")], classes=len(data.manifest.classes), teacher=None)
    fitted = engine.fit(
        classifier.to(on), objective, loader, order, config,
        folder=folder, seed=seed, validate=validator(data, loader), title="teacher",
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
