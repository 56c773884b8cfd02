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
    learn,
    steps_of,
    training_set,
)
from potstill.stages.test_split import answers
from potstill.stages.training import Trained
from potstill.teachers.prediction_store import Store

TEACHERS = "teachers"
ALONE, ON_LABELS, WITH_POOL, SMALL = "labels only", "distilled on labels", "distilled with the pool", "small student"


@dataclass
class Row:
    """One row of the table: a student trained in every seed. pool: whether it learned from the unlabelled images."""

    name: str
    student: StudentConfig
    trained: list[Trained]
    steps: int
    pool: bool
    right: np.ndarray
    deliverable: bool = True


@dataclass(frozen=True)
class Evidence:
    """Whether crossfitted students are right about the labels that their fold held out. bool [N] each."""

    without: np.ndarray
    with_pool: np.ndarray


@dataclass
class Labels:
    """What one generation of teachers said: the store of their answers, and what was selected from it."""

    store: Store
    selection: Selection
    identity: str
    rows: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)


class Rounds:
    """The state of one self-training. pool: int64, the rows that may take part."""

    def __init__(self, config: SelftrainConfig, data: Data, pool: np.ndarray, folder: Path) -> None:
        self.config, self.data, self.pool, self.folder = config, data, pool, folder
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

    def listen(self, voices: list[CalibratedTeacher]) -> Labels:
        """Ask a generation of teachers about every image, and select what to learn from."""
        number = len(self.labels)
        asked = np.concatenate([self.validation, self.pool])
        if number == 0:
            asked = np.concatenate([self.labelled, asked])
        strange = number == 0 and has_features(voices)
        if number == 0 and self.config.crossfit:
            self.folds = folds_of(voices, self.labelled)
        store = label(
            voices, self.data, asked, self.folder / "labels" / f"round-{number}", strangeness=strange,
            title=f"labelling the pool, round {number}", folds=self.folds if number == 0 else (),
        )  # fmt: skip
        self.first = self.first or store
        found = self.found(store, self.labelled)
        found.record = self._record(found, probabilities(store, self.pool))
        self.labels.append(found)
        return found

    def found(self, store: Store, labelled: np.ndarray, column: str = "logits") -> Labels:
        """Return what is selected from a store that has the pool and the validation images in it.

        labelled: whose classes say how many of each there should be; column: whose answers count.
        """
        config, chance = self.config, probabilities(store, self.pool, column)
        prior = np.bincount(self.data.manifest.label[labelled], minlength=chance.shape[1])
        selection = select(
            chance, self._strange(), prior, floor=config.floor, far=config.far, quota=config.quota,
            copies=config.copies, most=self.most,
        )  # fmt: skip
        identity = artifacts.fingerprint([artifacts.read_json(store.folder / "source.json"), column])
        return Labels(store, selection, identity, self.pool[selection.rows])

    def _strange(self) -> np.ndarray:
        assert self.first is not None
        return self.first.read(self.pool, np.zeros_like(self.pool))["strange"].astype(np.float32)

    def _record(self, found: Labels, chance: np.ndarray) -> dict[str, Any]:
        before = self.labels[-1].selection.predicted if self.labels else None
        after = found.selection.predicted
        return {
            "images": found.selection.counts(),
            "rows": len(found.rows),
            "classes": found.selection.histogram(chance.shape[1]),
            "predicted": np.bincount(after, minlength=chance.shape[1]).tolist(),
            "confidence": round(float(chance.max(1).mean()), 4) if len(chance) else None,
            "churn": None if before is None else round(churn(before, after), 2),
        }

    @property
    def most(self) -> int:
        """Pool rows that the budget can show once."""
        batch = self.config.train.batch_size
        return max(round(self.config.steps * batch * (1 - self.config.student.labelled_share)), batch)

    def without_pool(self, labels: Labels) -> None:
        """Train the rows that need no pool, with as many steps as those that do."""
        config = self.config
        steps = steps_of(self._set_of(labels), config.train.batch_size) if len(labels.rows) else config.steps
        alone = training_set(self.data, self.labelled, steps, config.train.batch_size, evaluations=EVALUATIONS)
        self._row(ALONE, config.student, alone, from_labels, pool=False)
        self._row(ON_LABELS, config.student, alone, self._signal(labels), pool=False)

    def with_pool(self, name: str, student: StudentConfig, labels: Labels, *, method: str = TEACHERS) -> Row:
        """Train a row on labels and pool; method: who labels the pool."""
        if method == TEACHERS:
            return self._row(name, student, self._set_of(labels), self._signal(labels), pool=True)
        made = self._training_set(self.labelled, self.unchosen())
        return self._row(name, student, made, from_itself(self.config), pool=True)

    def _signal(self, labels: Labels) -> TrainingSignal:
        return from_teachers(self.config, labels.store, self.first, labels.identity)

    def unchosen(self) -> np.ndarray:
        """Return the images that a student labels itself: any that are not strange, as many as the budget shows."""
        near = self.pool[self._strange() <= self.config.far]
        return near[permutation(self.config.seed, 0, len(near), "pool")[: self.most]] if len(near) else near

    def _set_of(self, labels: Labels) -> TrainingSet:
        return self._training_set(self.labelled, labels.rows)

    def _training_set(self, labelled: np.ndarray, rows: np.ndarray) -> TrainingSet:
        return training_set(
            self.data, np.concatenate([labelled, rows]), self.config.steps, self.config.train.batch_size
        )

    def _row(self, name: str, student: StudentConfig, made: TrainingSet, signal: TrainingSignal, *, pool: bool) -> Row:
        config, folder = self.config, self.folder / name.replace(" ", "-")
        own = student == config.student
        noise = config.noise if own or config.large_noise is None else config.large_noise
        trained = [learn(config, student, made, signal, folder, seed, noise=noise) for seed in self.seeds]
        steps = steps_of(made, config.train.batch_size)
        row = Row(name, student, trained, steps, pool, self._right(trained), own)
        self.rows[name] = row
        return row

    def _right(self, trained: list[Trained]) -> np.ndarray:
        return np.stack([right(one.load(), self.data, self.validation) for one in trained])

    def iterate(self) -> None:
        """Let the students become the teacher until they lose on validation, or the rounds are over."""
        config = self.config
        learner = config.large or config.student
        before = self.rows[WITH_POOL] if config.large is None else None
        for number in range(1, config.rounds + 1):
            labels = self.labels[0] if before is None else self.listen(self._promoted(before))
            if not len(labels.rows):
                return
            method = config.method if before is None else TEACHERS
            row = self.with_pool(f"round {number}", learner, labels, method=method)
            if before is not None and gain(row.right, before.right)[0] < 0:
                if number < config.rounds:
                    progress.note(f"Round {number} lost on validation, so it was the last.")
                break
            before = row
        if config.large is not None and before is not None:
            self.with_pool(SMALL, config.student, self.listen(self._promoted(before)))

    def _promoted(self, row: Row) -> list[CalibratedTeacher]:
        """Return the students of a row as voices, calibrated on validation, which they have not seen."""
        voices = []
        for trained in row.trained:
            model = trained.load()
            voices.append(CalibratedTeacher(model, model.card.weights_sha256, self.labelled))
        calibrate(voices, self.data, self.validation)
        return voices

    def evidence_of(self, row: Row) -> np.ndarray:
        """Return bool [S, N]: whether models that had not learned from an image are right about it.

        On validation it is the row's own; on the folds of the labels that of the crossfitted pair of its kind.
        """
        if self.evidence is None:
            return row.right
        folds = self.evidence.with_pool if row.pool else self.evidence.without
        return np.concatenate([row.right, np.repeat(folds[None], len(row.right), 0)], 1)

    def accuracies(self, row: Row) -> list[float]:
        """Return validation accuracy in percent, a seed each."""
        return [round(100.0 * float(each.mean()), 3) for each in row.right]


def right(model: Classifier, data: Data, rows: np.ndarray) -> np.ndarray:
    """Return bool [N]: whether a model is right about these rows."""
    return answers(model, data, rows).argmax(1) == data.manifest.label[rows]
