"""`TeacherSource`: what every kind of teacher is to those who train with it, and how its classes fit the data's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from potstill import artifacts, progress
from potstill.evaluation.metrics import accuracy
from potstill.models.card import Card
from potstill.models.class_map import ClassMap, described, match_classes, speaking
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier
from potstill.objectives.feature_terms import Wiring
from potstill.objectives.objective import Objective, Term, check
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, Views
from potstill.stages.test_split import answers
from potstill.teachers.base import Teacher
from potstill.training.predict import Model
from potstill.training.settings import TrainConfig

HARDLY = 1.5  # times the accuracy of guessing, below which a teacher is suspected


@dataclass(frozen=True)
class Replay:
    """For which training a teacher is evaluated, and whether in every step or once, into a store.

    views: of the training images. epochs: of each of so many `students`. folder: of the stores. stored: False
    evaluates it in every step.
    """

    views: Views
    epochs: int
    students: int
    folder: Path
    stored: bool = True


@dataclass(frozen=True)
class TrainingContext:
    """What an objective may need to know of the training it is for. steps: of the whole training."""

    data: Data
    views: Views
    wiring: Wiring
    steps: int
    aux_weight: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherSource(ABC):
    """A teacher, ready to teach; one subclass for each kind.

    card: classes are those of the data. identity: a digest of all that decides its logits. title: how it came to be,
    for the report. record: what its stage recorded. known: the classes of the data that it knows, None for all.
    facts: what the summary has of it besides. model: evaluates new images; None where there is nothing to evaluate.
    """

    card: Card
    identity: str
    title: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    known: tuple[int, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    _validation: dict[str, np.ndarray | None] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher | None:
        """Return it as `Batch -> Outputs`. taps: where its features are wanted; of a `network` only."""

    @property
    def network(self) -> Classifier | None:
        """The network, where its features and layers can be used; None where there are only logits."""
        return None

    @property
    def view_limit(self) -> int | None:
        """The number of views of each image that it has logits for; None for any."""
        return None

    def bind(self, data: Data, replay: Replay) -> TeacherSource:
        """Return this teacher for the training images of `data`, evaluated as `replay` says."""
        return self

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] for clean images; None where it has none for them."""
        return None if self.model is None else answers(self.model, data, rows)

    def validation_logits(self, data: Data) -> np.ndarray | None:
        """Return its logits [N, K] for the labelled validation images, computed once for a data set."""
        key = data.manifest.fingerprint
        if key not in self._validation:
            self._validation[key] = self.logits(data, data.manifest.rows("validation", labelled=True))
        return self._validation[key]

    def check(self, terms: Sequence[Term], classes: int) -> None:
        """Raise one `ConfigError` with all that is wrong with terms that this teacher is to take part in."""
        check(terms, classes=classes if self.known is None else len(self.known), teacher=True)

    def objective(self, terms: Sequence[Term], training: TrainingContext) -> Objective:
        """Return what its student minimises."""
        wiring = training.wiring
        return Objective(
            terms,
            classes=len(training.data.manifest.classes),
            teacher=self.function(wiring.taps),
            aux_weight=training.aux_weight,
            connections=wiring.connections,
            known=self.known,
        )

    def trained_with(self, student: Classifier, seed: int) -> Classifier:
        """Return what is trained: the student, with what learns beside it where this teacher does."""
        return student

    def save_beside(self, trained: Classifier, folder: Path) -> None:
        """Write into a student's folder what was trained beside the student."""
        return None

    def tested(self, student: Path) -> Model | None:
        """Return the model to measure on the test split. student: the folder of the first student."""
        return self.model

    def deployed(self, export: Callable[[Classifier], Path]) -> Path | None:
        """Return its file, to be measured beside the students'. export: writes one of a network."""
        return None

    def assert_unchanged(self) -> None:
        """Assert that it is bit for bit what it was before it taught."""
        return None


class NoTeacher(TeacherSource):
    """The absent teacher of a control: it has no logits, and nothing is computed by it."""

    def function(self, taps: tuple[Tap, ...] = ()) -> None:
        """Return None."""

    def validation_logits(self, data: Data) -> None:
        """Return None."""

    def check(self, terms: Sequence[Term], classes: int) -> None:
        """Raise `ConfigError` for terms that are wrong, or that need a teacher."""
        check(terms, classes=classes, teacher=False)


NO_TEACHER = NoTeacher(card=Card("none", (), 1, (1, 1), (0.0,), (1.0,), 1, (1, 1)), identity="")


@dataclass(frozen=True)
class Preparation:
    """Where and how a teacher is made ready: its folder, and how it is trained where it has no weights.

    seed: of its initial weights and of the order of images.
    """

    folder: Path
    train: TrainConfig
    views: Views
    seed: int


class Kind(NamedTuple):
    """How a kind of teacher is recognised by its settings, the input size it brings (0 for any), and how it is made."""

    recognises: Callable[[OneTeacher], bool]
    own_size: Callable[[OneTeacher], int]
    prepare: Callable[[OneTeacher, Data, Preparation], TeacherSource]


@dataclass(frozen=True)
class Matched:
    """A model whose logits are of the data's classes, and the map that made it so."""

    model: Any
    class_map: ClassMap

    def identity(self, own: str) -> str:
        """Return the digest of what decides the logits. own: that of the model before."""
        if self.class_map.is_identity:
            return own
        return artifacts.fingerprint([own, self.model.card.classes, self.class_map.columns])

    @property
    def facts(self) -> dict[str, Any]:
        """The map, where it changes anything."""
        return {} if self.class_map.is_identity else {"map": self.class_map.columns}


def match(model: Any, config: OneTeacher, data: Data) -> Matched:
    """Return a model in terms of the data's classes, and note how they were matched; raise `ConfigError`."""
    class_map = match_to_data(model.card.classes, config, data)
    return Matched(speaking(model, class_map, data.manifest.classes), class_map)


def match_to_data(teacher_classes: tuple[str, ...], config: OneTeacher, data: Data) -> ClassMap:
    """Return how a teacher's classes are those of the data, and note it; raise `ConfigError` where they are not."""
    who, data_classes = f"The teacher {config.model}", data.manifest.classes
    class_map = match_classes(teacher_classes, data_classes, config.class_map, who=who)
    sentence = described(class_map, teacher_classes, data_classes, who=who)
    if sentence:
        progress.note(sentence)
    return class_map


def plain_card(name: str, data: Data) -> Card:
    """Return the card of a teacher without a network."""
    mean, std = (0.0,) * data.channels, (1.0,) * data.channels
    return Card(name, data.manifest.classes, data.channels, data.crop, mean, std, data.resize, data.crop)


def record_of(model: Model, data: Data) -> dict[str, Any]:
    """Return the record of a teacher that was not trained here: its accuracy on the validation images."""
    rows = data.manifest.rows("validation", labelled=True)
    return accuracy_record(answers(model, data, rows), data)


def accuracy_record(logits: np.ndarray | None, data: Data) -> dict[str, Any]:
    """Return the record for its logits on the labelled validation images; an empty one where there are none."""
    if logits is None:
        return {}
    reached = accuracy(logits, data.manifest.label[data.manifest.rows("validation", labelled=True)])
    if reached < HARDLY * 100 / len(data.manifest.classes):
        progress.note(
            f"The teacher is right about only {reached:.1f} % of the validation images, hardly more than guessing. Are "
            "its classes in another order, or its images normalised otherwise?"
        )
    return {"seconds": 0.0, "validation_accuracy": {"last": round(reached, 3)}}
