"""Who labels: teachers that are given, and teachers that are made here as one model for each fold of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.manifest import SPLITS
from potstill.data.splits import folds
from potstill.errors import DataError, ModelError
from potstill.model_files.open import find
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig, TeacherConfig
from potstill.stages.selftrain.pretrained_teachers import transferred
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, calibrate, quality
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import EVALUATIONS, from_labels, learn, training_set


def teachers(config: SelftrainConfig, data: Data, folder: Path) -> tuple[list[CalibratedTeacher], dict[str, Any]]:
    """Return calibrated voices, and what their labels are worth by answers about images they had not seen."""
    voices: list[CalibratedTeacher] = []
    logits, labels, temperatures = [], [], []
    for number, teacher in enumerate(config.teachers):
        found = find(teacher.model)
        if found is None:
            own = _made(config, teacher, number, data, folder / f"teacher-{number}")
            rows = data.manifest.rows("train", labelled=True)
        else:
            own = [_given(teacher.model, found, data)]
            rows = data.manifest.rows("validation", labelled=True)
        own_logits, own_labels = calibrate(own, data, rows)
        logits.append(own_logits / own[0].temperature)
        labels.append(own_labels)
        temperatures.append(round(own[0].temperature, 4))
        voices += own
    worth = quality(np.concatenate(logits), np.concatenate(labels), temperature=1.0, floor=config.floor)
    return voices, {**worth, "temperature": temperatures, "models": len(voices)}


def _given(name: str, model: Any, data: Data) -> CalibratedTeacher:
    card = model.card
    if tuple(card.classes) != data.manifest.classes:
        missing = [c for c in data.manifest.classes if c not in card.classes] or ["none, but their order differs"]
        raise ModelError(
            f"The teacher {name} does not know the classes of the data: {', '.join(missing[:5])}. Give one that was "
            "trained on these classes."
        )
    progress.note(
        f"The teacher {name} is taken as it is. Whether it was trained on these labels is not known here, so its "
        "confidence is calibrated on the validation images."
    )
    return CalibratedTeacher(model, card.weights_sha256, np.zeros(0, np.int64))


def _made(
    config: SelftrainConfig, teacher: TeacherConfig, number: int, data: Data, folder: Path
) -> list[CalibratedTeacher]:
    """Return one voice a fold of the labelled train rows, each trained on the other folds."""
    rows = data.manifest.rows("train", labelled=True)
    parts = _folds(config, data, rows)
    if teacher.weights:
        made = transferred(config, teacher, data, parts, folder)
        return [CalibratedTeacher(fold.model, fold.identity, fold.seen) for fold in made]
    student = StudentConfig(model=teacher.model, options=teacher.options)
    batch = config.train.batch_size
    voices = []
    for k, held in enumerate(parts):
        seen = np.setdiff1d(rows, held)
        made = training_set(data, seen, config.teacher_steps, batch, evaluations=EVALUATIONS)
        seed = config.seed + 1000 * number + k
        noise = config.noise if config.teacher_noise is None else config.teacher_noise
        trained = learn(config, student, made, from_labels, folder / f"fold-{k}", seed, noise=noise)
        model = trained.load()
        voices.append(CalibratedTeacher(model, model.card.weights_sha256, seen))
    return voices


def _folds(config: SelftrainConfig, data: Data, rows: np.ndarray) -> list[np.ndarray]:
    """Return the held-out rows of each fold; fewer folds where a class has few images or groups."""
    own = data.manifest.select(rows)
    identity = own.digest if own.group is None else own.group
    fewest = min(len(np.unique(identity[own.label == k])) for k in range(len(own.classes)))
    count = min(config.folds, fewest)
    if count < 2:
        raise DataError(
            f"A class of {config.data.path} has one image to learn from, so no teacher can be made that has not seen "
            "it. Add labels, or give a teacher with --teacher FOLDER."
        )
    if count < config.folds:
        progress.note(f"The smallest class has {fewest} images or groups to learn from, so there are {count} folds.")
    held = SPLITS.index("validation")
    return [rows[part.split == held] for part in folds(own, count, seed=config.seed)]
