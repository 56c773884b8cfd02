"""The cells of a comparison: every student trained by every method with every seed, one folder each.

A finished cell is not trained again, an interrupted one is resumed from its checkpoint, as in a single run. Seeds are
the outer loop, so that a comparison that is stopped early has complete seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from potstill.objectives.objective import Term
from potstill.stages.compare.settings import CONTROL, Cell, CompareConfig
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.train import StudentSetup
from potstill.stages.side_by_side import SERIAL, Part, SideBySide
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.training import Trained

TUNING_SEED = 1000  # added to the seed of tuning trials, so that no reported result has the same seed

Key = tuple[str, str]  # names of student and method
Plan = dict[Key, list[Cell]]  # the candidates of each cell
Tuned = tuple[Cell, list[dict[str, object]]]  # the chosen candidate, and the record of each trial


@dataclass(frozen=True)
class Row:
    """One method for one student: its settings, the trials by which they were chosen, its trained seeds."""

    student: str
    method: str
    cell: Cell
    trained: list[Trained]
    trials: list[dict[str, object]]


@dataclass(frozen=True)
class Cells:
    """Training of the cells. folder: of the comparison."""

    config: CompareConfig
    data: Data
    teacher: TeacherSource
    folder: Path

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for terms that do not fit the data or the networks, before any student is trained."""
        for (_, method), candidates in plan.items():
            for cell in candidates:
                setup = setup_of(self.config, cell)
                train.check_terms(setup, self.data, terms_of(cell, method), self.teacher_of(method), self.config.seed)

    def run(self, plan: Plan, side: SideBySide = SERIAL) -> list[Row]:
        """Run the tuning trials, if any, then train every cell; return the rows by student."""
        chosen = self._tuned(plan, side)
        seeds = range(self.config.seed, self.config.seed + self.config.seeds)
        places = [(seed, key) for seed in seeds for key in chosen]
        parts = [self._part(chosen[key][0], key, self.folder / "cells", seed) for seed, key in places]
        trained: dict[Key, list[Trained]] = {key: [] for key in plan}
        for (_, key), one in zip(places, side.all(parts, "Training students"), strict=True):
            trained[key].append(one)
        return [Row(*key, cell, trained[key], trials) for key, (cell, trials) in chosen.items()]

    def teacher_of(self, method: str) -> TeacherSource | None:
        """Return the teacher of a method, None for the control."""
        return None if method == CONTROL else self.teacher

    def _train(self, cell: Cell, key: Key, folder: Path, seed: int) -> Trained:
        student, method = key
        setup = setup_of(self.config, cell)
        data = train.with_labels_of(setup.student, self.data, seed=self.config.data.seed)
        where = folder / student / method
        return train.train_one(setup, data, terms_of(cell, method), self.teacher_of(method), where, seed)

    def _part(self, cell: Cell, key: Key, folder: Path, seed: int) -> Part[Trained]:
        place = folder / key[0] / key[1] / f"seed-{seed}"
        return Part(
            place,
            lambda: self._train(cell, key, folder, seed),
            lambda: train.planned(setup_of(self.config, cell), self.data, self.config.seed),
        )

    def _tuned(self, plan: Plan, side: SideBySide) -> dict[Key, Tuned]:
        """Return the candidate of each cell with the best validation accuracy, and a record of each trial."""
        parts = [
            self._part(cell, key, self.folder / "tuning" / f"trial-{number}", self.config.seed + TUNING_SEED)
            for key, candidates in plan.items()
            for number, cell in enumerate(candidates)
            if len(candidates) > 1
        ]
        trained = iter(side.all(parts) if parts else ())
        return {key: self._tune(key, candidates, trained) for key, candidates in plan.items()}

    def _tune(self, key: Key, candidates: list[Cell], trained: Iterator[Trained]) -> Tuned:
        """Return the best of candidates, whose trials are the next of `trained`."""
        if len(candidates) == 1:
            return candidates[0], []
        trials, reached = [], []
        changes = self.config.candidates(key[1])
        for changed in changes:
            trial = next(trained)
            reached.append(trial.accuracy)
            record = {"validation_accuracy": trial.accuracy, "seconds": trial.record["seconds"]}
            trials.append({"settings": changed, **record})
        return candidates[reached.index(max(reached))], trials


def setup_of(config: CompareConfig, cell: Cell) -> StudentSetup:
    """Return how the students of a cell are trained."""
    return StudentSetup(cell.student, cell.train, config.training_views, cell.objective.aux_weight)


def terms_of(cell: Cell, method: str) -> tuple[Term, ...]:
    """Return the loss terms of a cell: the labels alone for the control."""
    return (Term(loss="cross_entropy"),) if method == CONTROL else cell.objective.loss_terms
