"""The results of a run: every row on the test split, evaluated once, after the choice on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts
from potstill.evaluation import metrics
from potstill.evaluation.measured import measured, over_seeds
from potstill.evaluation.statistics import compare
from potstill.models import zoo
from potstill.stages import summary, test_split
from potstill.stages.dataset import Data
from potstill.stages.examples import Reference
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, ensemble_of
from potstill.stages.selftrain.rounds import ALONE, Rounds, Row
from potstill.stages.shipped import Delivered, shipped
from potstill.training.predict import Model
from potstill.words import plural

TEACHERS = "teachers, averaged"


def table(rounds: Rounds, teachers: list[CalibratedTeacher], kept: str, folder: Path) -> dict[str, Any]:
    """Return the metrics of all models, and the recall of each class before and after; evaluates the test split."""
    data = rounds.data
    label = data.manifest.label[data.manifest.rows("test", labelled=True)]
    logits = _evaluate(rounds, teachers, data, folder)
    average = logits[TEACHERS]
    models = {TEACHERS: {"pool": False, "test_accuracy": [_accuracy(average, label)], **measured(average, label)}}
    models |= {row.name: _row(rounds, row, logits, label) for row in rounds.rows.values()}
    own = {"models": models, "recall": _recalls(rounds, logits, label, kept)}
    return own | _shipped(rounds, rounds.rows[kept], logits)


def _shipped(rounds: Rounds, row: Row, logits: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the kept model, compared with the averaged teachers."""
    best = rounds.best(row)
    weights = best.folder / zoo.WEIGHTS
    why = f"the best of {plural(len(row.trained), 'seed')} on validation" if len(row.trained) > 1 else ""
    file = str(weights.relative_to(rounds.folder))
    own, card = logits[_key(row, best.seed)], best.load().card
    one = Delivered(row.name, file, own, weights.stat().st_size, seed=best.seed, why=why, card=card)
    return shipped(one, rounds.data.manifest, rounds.folder, Reference(TEACHERS, logits[TEACHERS]))


def _evaluate(rounds: Rounds, teachers: list[CalibratedTeacher], data: Data, folder: Path) -> dict[str, np.ndarray]:
    models: dict[str, Model] = {TEACHERS: ensemble_of(teachers)}
    identities = {TEACHERS: artifacts.fingerprint([[teacher.identity, teacher.temperature] for teacher in teachers])}
    for row in rounds.rows.values():
        for trained in row.trained:
            model = trained.load()
            models[_key(row, trained.seed)] = model
            identities[_key(row, trained.seed)] = model.card.weights_sha256
    return test_split.open_test(models, identities, data, folder)


def _key(row: Row, seed: int) -> str:
    return f"{row.name}/{seed}"


def _accuracy(logits: np.ndarray, label: np.ndarray) -> float:
    return round(metrics.accuracy(logits, label), 3)


def _logits(row: Row, logits: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [logits[_key(row, trained.seed)] for trained in row.trained]


def _row(rounds: Rounds, row: Row, logits: dict[str, np.ndarray], label: np.ndarray) -> dict[str, Any]:
    own = _logits(row, logits)
    result: dict[str, Any] = {
        "name": row.student.model,
        "pool": row.pool,
        "parameters": zoo.count_parameters(row.trained[0].load()),
        "steps": row.steps,
        "validation_accuracy": {"last": rounds.accuracies(row)},
        **over_seeds(own, label),
        "seconds": round(sum(trained.record["seconds"] for trained in row.trained), 1),
    }
    if row.name != ALONE:
        before = summary.correct(_logits(rounds.rows[ALONE], logits), label)
        weight = summary.weights_of(label, rounds.config.train)
        verdict = compare(summary.correct(own, label), before, names=(row.name, "labels only"), weight=weight)
        result["against_labels_only"] = verdict.to_json()
    return result


def _recalls(rounds: Rounds, logits: dict[str, np.ndarray], label: np.ndarray, kept: str) -> dict[str, Any]:
    """Return the recall of each class in percent, of "labels only" and of the kept row, averaged over seeds.

    Classes without test images are left out.
    """

    def mean(row: Row) -> list[float]:
        each = np.stack([metrics.per_class_recall(one, label) for one in _logits(row, logits)])
        return [round(float(value), 2) for value in each.mean(0)]

    classes = rounds.data.manifest.classes
    before, after = mean(rounds.rows[ALONE]), mean(rounds.rows[kept])
    return {name: {"before": before[k], "after": after[k]} for k, name in enumerate(classes) if np.isfinite(before[k])}
