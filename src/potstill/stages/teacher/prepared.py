"""A teacher that is ready to teach, and how its classes are matched with those of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import artifacts, progress
from potstill.evaluation.metrics import accuracy
from potstill.models.card import Card
from potstill.models.class_map import ClassMap, described, match_classes, speaking
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, Recipe
from potstill.stages.test_split import answers as asked
from potstill.teachers.base import Teacher, averaged
from potstill.teachers.from_file import GivenTeacher
from potstill.training.predict import Model


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
