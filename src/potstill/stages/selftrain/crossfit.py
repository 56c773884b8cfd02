"""Cross-fitting: students with and without the pool, evaluated on the fold of labels they were not trained on.

A validation split of few labels is too small to detect a useful gain. So each fold of the teachers is held out again:
two students are trained without its labels, one of them also on the pool labelled by teachers that were not trained on
the fold either, and both are evaluated on it. Each label is then a held-out image once, on equal budgets.
"""

from __future__ import annotations

import numpy as np

from potstill.stages.selftrain.pseudo_labels import Fold, fold_column
from potstill.stages.selftrain.rounds import TEACHERS, Evidence, Labels, Rounds, correct
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
from potstill.stages.side_by_side import Part
from potstill.stages.training import Trained


def crossfit(rounds: Rounds, labels: Labels) -> Evidence | None:
    """Return the predictions of pairs of the first seed on their held-out folds; None if there are no folds.

    labels: of the first generation. Teachers that were trained before may have seen every label, so they have no folds.
    """
    if not rounds.folds:
        return None
    pairs = [_pair(rounds, labels, fold, number) for number, fold in enumerate(rounds.folds)]
    parts = [part for pair in pairs for part in pair]
    trained = iter(rounds.side.all(parts, "Cross-fitting on folds of the labels"))
    results = [
        [correct(next(trained).load(), rounds.data, fold.held) for _ in pair]
        for pair, fold in zip(pairs, rounds.folds, strict=True)
    ]
    without, with_pool = (np.concatenate([pair[side] for pair in results]) for side in (0, -1))
    return Evidence(without, with_pool)


def _pair(rounds: Rounds, labels: Labels, fold: Fold, number: int) -> list[Part[Trained]]:
    """Return the trainings of the students without and with the pool; only the former if the pool is empty.

    Neither is trained on the labels of the fold. The other labelled images have hard labels only, because the teacher
    that labels the pool was trained on all of them.
    """
    config, column, batch = rounds.config, fold_column(number), rounds.config.batch_size
    seen = np.setdiff1d(rounds.labelled, fold.held)
    own = rounds.selected(labels.store, seen, column)
    rows, signal = own.rows, from_teachers(config, own.store, None, own.identity, column)
    if config.method_of_student != TEACHERS:
        rows, signal = rounds.unselected(), from_itself(config)

    def student(name: str, images: TrainingSet, signal: TrainingSignal) -> Part[Trained]:
        folder = rounds.folder / "crossfit" / f"fold-{number}" / name
        return part(config, config.student, images, signal, folder, config.seed, noise=config.noise)

    pool = training_set(rounds.data, np.concatenate([seen, rows]), config.steps, batch)
    alone = training_set(rounds.data, seen, steps_of(pool, batch), batch, evaluations=EVALUATIONS)
    without = student("without", alone, from_labels)
    return [without, student("with", pool, signal)] if len(rows) else [without]
