"""The evidence of a run: every row measured on the test split, opened once, after the choice was made on validation."""

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
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, together
from potstill.stages.selftrain.rounds import ALONE, Rounds, Row
from potstill.training.predict import Model

TEACHERS = "teachers, averaged"


def table(rounds: Rounds, voices: list[CalibratedTeacher], kept: str, folder: Path) -> dict[str, Any]:
    """Return the figures of all models, and the recall of each class before and after; opens the test split, once."""
    data = rounds.data
    truth = data.manifest.label[data.manifest.rows("test", labelled=True)]
    said = _open(rounds, voices, data, folder)
    teachers = {"pool": False, "test_accuracy": [_accuracy(said[TEACHERS], truth)], **measured(said[TEACHERS], truth)}
    models = {TEACHERS: teachers}
    models |= {row.name: _row(rounds, row, said, truth) for row in rounds.rows.values()}
    return {"models": models, "recall": _recalls(rounds, said, truth, kept)}


def _open(rounds: Rounds, voices: list[CalibratedTeacher], data: Data, folder: Path) -> dict[str, np.ndarray]:
    models: dict[str, Model] = {TEACHERS: together(voices)}
    identities = {TEACHERS: artifacts.fingerprint([[voice.identity, voice.temperature] for voice in voices])}
    for row in rounds.rows.values():
        for trained in row.trained:
            model = trained.load()
            models[_key(row, trained.seed)] = model
            identities[_key(row, trained.seed)] = model.card.weights_sha256
    return test_split.open_test(models, identities, data, folder)


def _key(row: Row, seed: int) -> str:
    return f"{row.name}/{seed}"


def _accuracy(logits: np.ndarray, truth: np.ndarray) -> float:
    return round(metrics.accuracy(logits, truth), 3)


def _logits(row: Row, said: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [said[_key(row, trained.seed)] for trained in row.trained]


def _row(rounds: Rounds, row: Row, said: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, Any]:
    own = _logits(row, said)
    found: dict[str, Any] = {
        "name": row.student.model,
        "pool": row.pool,
        "parameters": zoo.count_parameters(row.trained[0].load()),
        "steps": row.steps,
        "validation_accuracy": {"last": rounds.accuracies(row)},
        **over_seeds(own, truth),
        "seconds": round(sum(trained.record["seconds"] for trained in row.trained), 1),
    }
    if row.name != ALONE:
        before = summary.correct(_logits(rounds.rows[ALONE], said), truth)
        verdict = compare(summary.correct(own, truth), before, names=(row.name, "labels only"))
        found["against_labels_only"] = verdict.to_json()
    return found


def _recalls(rounds: Rounds, said: dict[str, np.ndarray], truth: np.ndarray, kept: str) -> dict[str, Any]:
    """Return the recall of each class in percent, labels only and of the kept row, the mean over seeds."""

    def mean(row: Row) -> list[float]:
        each = np.stack([metrics.per_class_recall(logits, truth) for logits in _logits(row, said)])
        return [round(float(value), 2) for value in each.mean(0)]

    classes = rounds.data.manifest.classes
    before, after = mean(rounds.rows[ALONE]), mean(rounds.rows[kept])
    return {name: {"before": before[k], "after": after[k]} for k, name in enumerate(classes)}
