"""The rows of the table: without the pool, with it, and the rounds in which the students become the teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts, progress
from potstill.models.outputs import Classifier
from potstill.stages.data import Data
from potstill.stages.distil import Trained
from potstill.stages.evaluation import answers
from potstill.stages.recipe import StudentConfig
from potstill.stages.selftrain.choice import gain
from potstill.stages.selftrain.pseudo import Voice, calibrate, label, probabilities
from potstill.stages.selftrain.select import Selection, churn, select
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import EVALUATIONS, World, learn, steps_of, world
from potstill.store import Store

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


@dataclass
class Labels:
    """What one generation of teachers said: the store of their answers, and what was selected from it."""

    store: Store
    selection: Selection
    identity: str
    validation: np.ndarray
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
        self.labels: list[Labels] = []
        self.first: Store | None = None

    @property
    def seeds(self) -> range:
        """The seeds of every row."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def listen(self, voices: list[Voice]) -> Labels:
        """Ask a generation of teachers about every image, and select what to learn from."""
        config, number = self.config, len(self.labels)
        asked = np.concatenate([self.validation, self.pool])
        if number == 0:
            asked = np.concatenate([self.labelled, asked])
        strange = number == 0 and all(isinstance(voice.model, Classifier) for voice in voices)
        store = label(
            voices, self.data, asked, self.folder / "labels" / f"round-{number}", strangeness=strange,
            title=f"labelling the pool, round {number}",
        )  # fmt: skip
        self.first = self.first or store
        chance = probabilities(store, self.pool)
        prior = np.bincount(self.data.manifest.label[self.labelled], minlength=chance.shape[1])
        selection = select(
            chance, self._strange(), prior, floor=config.floor, far=config.far, quota=config.quota,
            copies=config.copies, most=self.most,
        )  # fmt: skip
        said = np.log(np.clip(probabilities(store, self.validation), 1e-30, 1))
        found = Labels(
            store,
            selection,
            artifacts.fingerprint(artifacts.read_json(store.folder / "source.json")),
            said,
            self.pool[selection.rows],
        )
        found.record = self._record(found, chance)
        self.labels.append(found)
        return found

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
        steps = steps_of(self._world(labels), config.train.batch_size) if len(labels.rows) else config.steps
        alone = world(self.data, self.labelled, steps, config.train.batch_size, evaluations=EVALUATIONS)
        self._row(ALONE, config.student, alone, None, pool=False)
        self._row(ON_LABELS, config.student, alone, labels, pool=False)

    def with_pool(self, name: str, student: StudentConfig, labels: Labels) -> Row:
        """Train a row on labels and pool."""
        return self._row(name, student, self._world(labels), labels, pool=True)

    def _world(self, labels: Labels) -> World:
        train = np.concatenate([self.labelled, labels.rows])
        return world(self.data, train, self.config.steps, self.config.train.batch_size)

    def _row(self, name: str, student: StudentConfig, made: World, labels: Labels | None, *, pool: bool) -> Row:
        folder = self.folder / name.replace(" ", "-")
        stores = (labels.store, self.first) if labels else None
        trained = [
            learn(
                self.config, student, made, stores, folder, seed,
                validation=labels.validation if labels else None, identity=labels.identity if labels else "",
            )
            for seed in self.seeds
        ]  # fmt: skip
        deliverable = student == self.config.student
        steps = steps_of(made, self.config.train.batch_size)
        row = Row(name, student, trained, steps, pool, self._right(trained), deliverable)
        self.rows[name] = row
        return row

    def _right(self, trained: list[Trained]) -> np.ndarray:
        truth = self.data.manifest.label[self.validation]
        return np.stack([answers(t.load(), self.data, self.validation).argmax(1) == truth for t in trained])

    def iterate(self) -> None:
        """Let the students become the teacher until they gain nothing, or the rounds are over."""
        config = self.config
        learner = config.large or config.student
        before = self.rows[WITH_POOL] if config.large is None else None
        for number in range(1, config.rounds + 1):
            labels = self.labels[0] if before is None else self.listen(self._promoted(before))
            if not len(labels.rows):
                return
            row = self.with_pool(f"round {number}", learner, labels)
            if before is not None and gain(row.right, before.right)[0] <= 0:
                if number < config.rounds:
                    progress.note(f"Round {number} gained nothing on validation, so it was the last.")
                break
            before = row
        if config.large is not None and before is not None:
            self.with_pool(SMALL, config.student, self.listen(self._promoted(before)))

    def _promoted(self, row: Row) -> list[Voice]:
        """Return the students of a row as voices, calibrated on validation, which they have not seen."""
        voices = []
        for trained in row.trained:
            model = trained.load()
            voices.append(Voice(model, model.card.weights_sha256, self.labelled))
        calibrate(voices, self.data, self.validation)
        return voices

    def accuracies(self, row: Row) -> list[float]:
        """Return validation accuracy in percent, a seed each."""
        return [round(100.0 * float(each.mean()), 3) for each in row.right]
