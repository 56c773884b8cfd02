"""Evidence from the labels themselves: pairs of students, with the pool and without, that never saw a fold of them.

A validation split of few labels is too small to show a gain worth having. So each fold of the teachers is held out once
more: a pair of students learns without its labels, the one with the pool from teachers that have not seen it either,
and both are asked about it. Each label then counts as one more held-out image, and both of a pair pay the same.
"""

from __future__ import annotations

import numpy as np

from potstill import progress
from potstill.stages.selftrain.pseudo_labels import Fold, fold_column
from potstill.stages.selftrain.rounds import TEACHERS, Evidence, Labels, Rounds, right
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


def crossfit(rounds: Rounds, labels: Labels) -> Evidence | None:
    """Return what pairs of the first seed say of the labels they were kept from; None where there are no folds.

    labels: of the first generation. Teachers that were given may have seen every label and have no part in it.
    """
    if not rounds.folds:
        return None
    found = []
    with progress.task("crossfitting on folds of the labels", len(rounds.folds)) as shown:
        for number, fold in enumerate(rounds.folds):
            found.append(_pair(rounds, labels, fold, number))
            shown.advance()
    without, with_pool = (np.concatenate(side) for side in zip(*found, strict=True))
    return Evidence(without, with_pool)


def _pair(rounds: Rounds, labels: Labels, fold: Fold, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the student without the pool and that with it are right about a fold, bool [N] each.

    The labels of the fold are in neither: its labelled images are learned with their labels alone, since the voice
    that may speak of the pool has seen them all.
    """
    config, column, batch = rounds.config, fold_column(number), rounds.config.train.batch_size
    seen = np.setdiff1d(rounds.labelled, fold.held)
    own = rounds.found(labels.store, seen, column)
    rows, signal = own.rows, from_teachers(config, own.store, None, own.identity, column)
    if config.method_of_student != TEACHERS:
        rows, signal = rounds.unchosen(), from_itself(config)

    def student(name: str, made: TrainingSet, signal: TrainingSignal) -> np.ndarray:
        folder = rounds.folder / "crossfit" / f"fold-{number}" / name
        trained = learn(config, config.student, made, signal, folder, config.seed, noise=config.noise)
        return right(trained.load(), rounds.data, fold.held)

    pool = training_set(rounds.data, np.concatenate([seen, rows]), config.steps, batch)
    alone = training_set(rounds.data, seen, steps_of(pool, batch), batch, evaluations=EVALUATIONS)
    without = student("without", alone, from_labels)
    return without, student("with", pool, signal) if len(rows) else without
