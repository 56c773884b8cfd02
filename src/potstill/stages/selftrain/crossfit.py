"""Cross-fitting: students with and without the pool, evaluated on the fold of labels they were not trained on.

A validation split of few labels is too small to detect a useful gain. So each fold of the teachers is held out again:
two students are trained without its labels, one of them also on the pool labelled by teachers that were not trained on
the fold either, and both are evaluated on it. Each label is then a held-out image once, on equal budgets.
"""

from __future__ import annotations

import numpy as np

from potstill import progress
from potstill.stages.selftrain.pseudo_labels import Fold, fold_column
from potstill.stages.selftrain.rounds import TEACHERS, Evidence, Labels, Rounds, correct
from potstill.stages.selftrain.students import (
    EVALUATIONS,
    TrainingSet,
    TrainingSignal,
    from_itself,
    from_labels,
    from_teachers,
    steps_of,
    train,
    training_set,
)


def crossfit(rounds: Rounds, labels: Labels) -> Evidence | None:
    """Return the predictions of pairs of the first seed on their held-out folds; None if there are no folds.

    labels: of the first generation. Teachers that were trained before may have seen every label, so they have no folds.
    """
    if not rounds.folds:
        return None
    pairs = []
    with progress.task("Cross-fitting on folds of the labels", len(rounds.folds)) as task:
        for number, fold in enumerate(rounds.folds):
            pairs.append(_pair(rounds, labels, fold, number))
            task.advance()
    without, with_pool = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return Evidence(without, with_pool)


def _pair(rounds: Rounds, labels: Labels, fold: Fold, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the correct predictions of the students without and with the pool on a fold, bool [N] each.

    Neither is trained on the labels of the fold. The other labelled images have hard labels only, because the teacher
    that labels the pool was trained on all of them.
    """
    config, column, batch = rounds.config, fold_column(number), rounds.config.train.batch_size
    seen = np.setdiff1d(rounds.labelled, fold.held)
    own = rounds.selected(labels.store, seen, column)
    rows, signal = own.rows, from_teachers(config, own.store, None, own.identity, column)
    if config.method_of_student != TEACHERS:
        rows, signal = rounds.unselected(), from_itself(config)

    def student(name: str, images: TrainingSet, signal: TrainingSignal) -> np.ndarray:
        folder = rounds.folder / "crossfit" / f"fold-{number}" / name
        trained = train(config, config.student, images, signal, folder, config.seed, noise=config.noise)
        return correct(trained.load(), rounds.data, fold.held)

    pool = training_set(rounds.data, np.concatenate([seen, rows]), config.steps, batch)
    alone = training_set(rounds.data, seen, steps_of(pool, batch), batch, evaluations=EVALUATIONS)
    without = student("without", alone, from_labels)
    return without, student("with", pool, signal) if len(rows) else without
