"""`TeacherSource`, the interface of all kinds of teachers, and the matching of their classes with the data's."""

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
from potstill.stages.test_split import clean_logits
from potstill.teachers.base import Teacher
from potstill.training.predict import Model
from potstill.training.settings import TrainConfig

HARDLY = 1.5  # times the accuracy of guessing; a note warns about teachers below it


@dataclass(frozen=True)
class Replay:
    """The training for which a teacher is evaluated, and whether its logits are cached.

    views: of the training images. epochs: of each student; students: their number. folder: of the stores. stored: False
    evaluates the teacher in every step.
    """

    views: Views
    epochs: int
    students: int
    folder: Path
    stored: bool = True


@dataclass(frozen=True)
class TrainingContext:
    """The training of an objective. steps: of the whole training."""

    data: Data
    views: Views
    wiring: Wiring
    steps: int
    aux_weight: float


@dataclass(frozen=True, eq=False, kw_only=True)
class TeacherSource(ABC):
    """A prepared teacher; one subclass for each kind.

    card: its classes are those of the data. identity: a digest of what its logits depend on. title: how it was
    prepared, for the report. record: of its stage. known: indices of the data's classes that it has, None for all.
    facts: other parts of the summary. model: evaluates new images; None if it cannot.
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
        """Return it as `Batch -> Outputs`. taps: of the features to compute; for a `network` only."""

    @property
    def network(self) -> Classifier | None:
        """The network, if its features and layers can be used; None if there are only logits."""
        return None

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy in percent; None if it was not measured."""
        return self.record.get("validation_accuracy", {}).get("kept")

    @property
    def view_limit(self) -> int | None:
        """The number of views of each image for which it has logits; None for any."""
        return None

    def bind(self, data: Data, replay: Replay) -> TeacherSource:
        """Return this teacher for the training images of `data`, evaluated as `replay` says."""
        return self

    def fill(self) -> None:
        """Compute what several trainings read, before they begin at the same time."""
        return None

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] for images without augmentation; None if it has none for them."""
        return None if self.model is None else clean_logits(self.model, data, rows)

    def validation_logits(self, data: Data) -> np.ndarray | None:
        """Return its logits [N, K] for the labelled validation images, computed once per data set."""
        key = data.manifest.fingerprint
        if key not in self._validation:
            self._validation[key] = self.logits(data, data.manifest.rows("validation", labelled=True))
        return self._validation[key]

    def check(self, terms: Sequence[Term], classes: int) -> None:
        """Raise one `ConfigError` with all problems of loss terms with this teacher."""
        check(terms, classes=classes if self.known is None else len(self.known), teacher=True)

    def objective(self, terms: Sequence[Term], training: TrainingContext) -> Objective:
        """Return the objective of its student."""
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
        """Return the module to train: the student, and whatever is trained together with it."""
        return student

    def save_beside(self, trained: Classifier, folder: Path) -> None:
        """Save what was trained together with the student into the student's folder."""
        return None

    def tested(self, student: Path) -> Model | None:
        """Return the model to evaluate on the test split. student: the folder of the first student."""
        return self.model

    def deployed(self, export: Callable[[Classifier], Path]) -> Path | None:
        """Return its file, to measure its size and latency. export: writes one of a network."""
        return None

    def assert_unchanged(self) -> None:
        """Assert that it did not change by a bit during training."""
        return None


class NoTeacher(TeacherSource):
    """The teacher of a control, which has no logits."""

    def function(self, taps: tuple[Tap, ...] = ()) -> None:
        """Return None."""

    def validation_logits(self, data: Data) -> None:
        """Return None."""

    def check(self, terms: Sequence[Term], classes: int) -> None:
        """Raise `ConfigError` for terms that are wrong or need a teacher."""
        check(terms, classes=classes, teacher=False)


NO_TEACHER = NoTeacher(card=Card("none", (), 1, (1, 1), (0.0,), (1.0,), 1, (1, 1)), identity="")


@dataclass(frozen=True)
class Preparation:
    """The folder of a teacher, and how it is trained if it has no weights.

    seed: of its initial weights and of the order of images.
    """

    folder: Path
    train: TrainConfig
    views: Views
    seed: int


class Kind(NamedTuple):
    """A kind of teacher: whether settings are of it, its input size (0 for any), and its preparation."""

    recognises: Callable[[OneTeacher], bool]
    own_size: Callable[[OneTeacher], int]
    prepare: Callable[[OneTeacher, Data, Preparation], TeacherSource]


@dataclass(frozen=True)
class Matched:
    """A model with logits of the data's classes, and the class map."""

    model: Any
    class_map: ClassMap

    def identity(self, own: str) -> str:
        """Return the digest of what the logits depend on. own: that of the model without the map."""
        if self.class_map.is_identity:
            return own
        return artifacts.fingerprint([own, self.model.card.classes, self.class_map.columns])

    @property
    def facts(self) -> dict[str, Any]:
        """The map, unless it is the identity."""
        return {} if self.class_map.is_identity else {"map": self.class_map.columns}


def match(model: Any, config: OneTeacher, data: Data) -> Matched:
    """Return a model with logits of the data's classes, and note how they were matched; raise `ConfigError`."""
    class_map = match_to_data(model.card.classes, config, data)
    return Matched(speaking(model, class_map, data.manifest.classes), class_map)


def match_to_data(teacher_classes: tuple[str, ...], config: OneTeacher, data: Data) -> ClassMap:
    """Return the map from a teacher's classes to those of the data, and note it; raise `ConfigError` if none match."""
    who, data_classes = f"The teacher {config.model}", data.manifest.classes
    class_map = match_classes(teacher_classes, data_classes, config.class_map, who=who)
    sentence = described(class_map, teacher_classes, data_classes, who=who)
    if sentence:
        progress.note(sentence)
    return class_map


def plain_card(name: str, data: Data) -> Card:
    """Return the card of a teacher without a network."""
    mean, std = (0.0,) * data.channels, (1.0,) * data.channels
    return Card(name, data.manifest.classes, data.channels, data.crop, mean, std, data.resize, data.crop, fit=data.fit)


def record_of(model: Model, data: Data) -> dict[str, Any]:
    """Return the record of a trained teacher: its accuracy on the validation images."""
    rows = data.manifest.rows("validation", labelled=True)
    return accuracy_record(clean_logits(model, data, rows), data)


def accuracy_record(logits: np.ndarray | None, data: Data) -> dict[str, Any]:
    """Return the record of logits for the labelled validation images; an empty one if there are none."""
    if logits is None:
        return {}
    percent = accuracy(logits, data.manifest.label[data.manifest.rows("validation", labelled=True)])
    if percent < HARDLY * 100 / len(data.manifest.classes):
        progress.note(
            f"The teacher has only {percent:.1f} % validation accuracy, hardly more than guessing. Check the order of "
            "its classes and the normalisation of its images."
        )
    return {"seconds": 0.0, "validation_accuracy": dict.fromkeys(("last", "kept"), round(percent, 3))}
