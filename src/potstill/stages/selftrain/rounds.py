"""The rows of the table: without the pool, with it, and the rounds in which the students become the teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts, progress
from potstill.data.draws import permutation
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig
from potstill.stages.selftrain.choice import gain
from potstill.stages.selftrain.pseudo_labels import (
    CalibratedTeacher,
    Fold,
    calibrate,
    folds_of,
    has_features,
    label,
    probabilities,
)
from potstill.stages.selftrain.selection import Selection, churn, select
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import (
    EVALUATIONS,
    TrainingSet,
    TrainingSignal,
    from_itself,
    from_labels,
    from_teachers,
    part,
    steps_of,
    training_set,
)
from potstill.stages.side_by_side import SERIAL, SideBySide
from potstill.stages.test_split import clean_logits
from potstill.stages.training import Trained
from potstill.teachers.prediction_store import Store

TEACHERS = "teachers"
ALONE, ON_LABELS, WITH_POOL, SMALL = "labels only", "distilled on labels", "distilled with the pool", "small student"


@dataclass
class Row:
    """One row of the table: a student trained with every seed. pool: whether it was trained on the unlabelled images.

    correct: bool [S, N], correct predictions on the validation images. deliverable: whether it can be kept.
    """

    name: str
    student: StudentConfig
    trained: list[Trained]
    steps: int
    pool: bool
    correct: np.ndarray
    deliverable: bool = True


@dataclass(frozen=True)
class Evidence:
    """Correct predictions of cross-fitted students on the labels that their fold held out. bool [N] each."""

    without: np.ndarray
    with_pool: np.ndarray


@dataclass
class Labels:
    """The pseudo-labels of one generation of teachers: the store of their predictions, and the selection from it."""

    store: Store
    selection: Selection
    identity: str
    rows: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)


class Rounds:
    """The state of one self-training. pool: int64, the rows of the deduplicated pool."""

    def __init__(
        self, config: SelftrainConfig, data: Data, pool: np.ndarray, folder: Path, side: SideBySide = SERIAL
    ) -> None:
        self.config, self.data, self.pool, self.folder, self.side = config, data, pool, folder, side
        manifest = data.manifest
        self.labelled = manifest.rows("train", labelled=True)
        self.validation = manifest.rows("validation", labelled=True)
        self.rows: dict[str, Row] = {}
        self.folds: list[Fold] = []
        self.evidence: Evidence | None = None
        self.labels: list[Labels] = []
        self.first: Store | None = None

    @property
    def seeds(self) -> range:
        """The seeds of every row."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def label_pool(self, teachers: list[CalibratedTeacher]) -> Labels:
        """Compute the predictions of a generation of teachers for every image, and select pseudo-labels."""
        number = len(self.labels)
        rows = np.concatenate([self.validation, self.pool])
        if number == 0:
            rows = np.concatenate([self.labelled, rows])
        if number == 0 and self.config.crossfit:
            self.folds = folds_of(teachers, self.labelled)
        store = label(
            teachers,
            self.data,
            rows,
            self.folder / "labels" / f"round-{number}",
            with_distance=number == 0 and has_features(teachers),
            title=f"Labelling the pool, round {number}",
            folds=self.folds if number == 0 else (),
        )
        self.first = self.first or store
        labels = self.selected(store, self.labelled)
        labels.record = self._record(labels, probabilities(store, self.pool))
        self.labels.append(labels)
        return labels

    def selected(self, store: Store, labelled: np.ndarray, column: str = "logits") -> Labels:
        """Return the selection from a store that has predictions for the pool.

        labelled: rows whose class frequencies determine the quotas; column: the predictions to use.
        """
        config, probability = self.config, probabilities(store, self.pool, column)
        prior = np.bincount(self.data.manifest.label[labelled], minlength=probability.shape[1])
        selection = select(
            probability,
            self._distance(),
            prior,
            min_confidence=config.min_confidence,
            max_distance=config.max_distance,
            quota=config.quota,
            copies=config.copies,
            most=self.most,
        )
        identity = artifacts.fingerprint([artifacts.read_json(store.folder / "source.json"), column])
        return Labels(store, selection, identity, self.pool[selection.rows])

    def _distance(self) -> np.ndarray:
        """Return the out-of-distribution scores of the pool, float32 [P]."""
        assert self.first is not None, "the first generation of teachers computes them"
        return self.first.read(self.pool, np.zeros_like(self.pool))["distance"].astype(np.float32)

    def _record(self, labels: Labels, probability: np.ndarray) -> dict[str, Any]:
        before = self.labels[-1].selection.predicted if self.labels else None
        after, classes = labels.selection.predicted, probability.shape[1]
        return {
            "images": labels.selection.counts(),
            "rows": len(labels.rows),
            "classes": labels.selection.histogram(classes),
            "predicted": np.bincount(after, minlength=classes).tolist(),
            "confidence": round(float(probability.max(1).mean()), 4) if len(probability) else None,
            "churn": None if before is None else round(churn(before, after), 2),
        }

    @property
    def most(self) -> int:
        """The number of pool rows that the budget can use once."""
        batch = self.config.batch_size
        return max(round(self.config.steps * batch * (1 - self.config.student.labelled_share)), batch)

    def without_pool(self, labels: Labels) -> None:
        """Train the rows without the pool, with as many steps as those with it."""
        config = self.config
        steps = steps_of(self._set_of(labels), config.batch_size) if len(labels.rows) else config.steps
        alone = training_set(self.data, self.labelled, steps, config.batch_size, evaluations=EVALUATIONS)
        self._row(ALONE, config.student, alone, from_labels, pool=False)
        self._row(ON_LABELS, config.student, alone, self._signal(labels), pool=False)

    def with_pool(self, name: str, student: StudentConfig, labels: Labels, *, method: str = TEACHERS) -> Row:
        """Train a row on labels and pool; method: "teachers", or the one by which the student labels the pool."""
        if method == TEACHERS:
            return self._row(name, student, self._set_of(labels), self._signal(labels), pool=True)
        images = self._training_set(self.labelled, self.unselected())
        return self._row(name, student, images, from_itself(self.config), pool=True)

    def _signal(self, labels: Labels) -> TrainingSignal:
        return from_teachers(self.config, labels.store, self.first, labels.identity)

    def unselected(self) -> np.ndarray:
        """Return the pool rows that a student labels itself: within `max_distance`, as many as the budget uses."""
        near = self.pool[self._distance() <= self.config.max_distance]
        return near[permutation(self.config.seed, 0, len(near), "pool")[: self.most]] if len(near) else near

    def _set_of(self, labels: Labels) -> TrainingSet:
        return self._training_set(self.labelled, labels.rows)

    def _training_set(self, labelled: np.ndarray, rows: np.ndarray) -> TrainingSet:
        return training_set(self.data, np.concatenate([labelled, rows]), self.config.steps, self.config.batch_size)

    def _row(
        self, name: str, student: StudentConfig, images: TrainingSet, signal: TrainingSignal, *, pool: bool
    ) -> Row:
        config, folder = self.config, self.folder / name.replace(" ", "-")
        own = student == config.student
        noise = config.noise if own or config.large_noise is None else config.large_noise
        parts = [part(config, student, images, signal, folder, seed, noise=noise) for seed in self.seeds]
        trained = self.side.all(parts)
        steps = steps_of(images, config.batch_size)
        row = Row(name, student, trained, steps, pool, self._correct(trained), own)
        self.rows[name] = row
        return row

    def _correct(self, trained: list[Trained]) -> np.ndarray:
        return np.stack([correct(one.load(), self.data, self.validation) for one in trained])

    def iterate(self) -> None:
        """Train the rounds, each with the students of the one before as teachers; stop if validation gets worse.

        Few validation images vary by more than a round gains, so a difference within the standard error does not stop.
        """
        config = self.config
        student = config.large or config.student
        before = self.rows[WITH_POOL] if config.large is None else None
        for number in range(1, config.rounds + 1):
            labels = self.labels[0] if before is None else self.label_pool(self._promoted(before))
            if not len(labels.rows):
                return
            method = config.method if before is None else TEACHERS
            row = self.with_pool(f"round {number}", student, labels, method=method)
            if before is not None and self._worse(row, before):
                if number < config.rounds:
                    progress.note(
                        f"Stopped after round {number}: its validation accuracy is lower than that of the round "
                        "before by more than the standard error."
                    )
                break
            before = row
        if config.large is not None and before is not None:
            self.with_pool(SMALL, config.student, self.label_pool(self._promoted(before)))

    @staticmethod
    def _worse(row: Row, before: Row) -> bool:
        difference, error = gain(row.correct, before.correct)
        return difference < -error

    def _promoted(self, row: Row) -> list[CalibratedTeacher]:
        """Return the students of a row as teachers, calibrated on the validation images."""
        teachers = []
        for trained in row.trained:
            model = trained.load()
            teachers.append(CalibratedTeacher(model, model.card.weights_sha256, self.labelled))
        calibrate(teachers, self.data, self.validation)
        return teachers

    def evidence_of(self, row: Row) -> np.ndarray:
        """Return correct predictions on images that the models were not trained on, bool [S, N].

        On validation images they are of the row's own models, on the labels of the cross-fitted student of its kind.
        """
        if self.evidence is None:
            return row.correct
        folds = self.evidence.with_pool if row.pool else self.evidence.without
        return np.concatenate([row.correct, np.repeat(folds[None], len(row.correct), 0)], 1)

    def accuracies(self, row: Row) -> list[float]:
        """Return the validation accuracy of each seed in percent."""
        return [round(100.0 * float(each.mean()), 3) for each in row.correct]

    def best(self, row: Row) -> Trained:
        """Return the model of a row with the best validation accuracy."""
        return row.trained[int(np.argmax(self.accuracies(row)))]


def correct(model: Classifier, data: Data, rows: np.ndarray) -> np.ndarray:
    """Return the correct predictions of a model on these rows, bool [N]."""
    return clean_logits(model, data, rows).argmax(1) == data.manifest.label[rows]
