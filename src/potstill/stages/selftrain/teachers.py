"""The teachers of a self-training: trained models, and teachers trained here as one model per fold of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.manifest import SPLITS
from potstill.data.splits import folds as split_folds
from potstill.errors import DataError, ModelError
from potstill.model_files.open import find
from potstill.stages.dataset import Data
from potstill.stages.recipe import StudentConfig, TeacherConfig
from potstill.stages.selftrain.pretrained_teachers import transferred
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, calibrate, quality
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.students import EVALUATIONS, from_labels, part, training_set
from potstill.stages.side_by_side import SERIAL, Part, SideBySide
from potstill.stages.training import Trained


def prepare_teachers(
    config: SelftrainConfig, data: Data, folder: Path, side: SideBySide = SERIAL
) -> tuple[list[CalibratedTeacher], dict[str, Any]]:
    """Return the calibrated teachers, and the quality of their labels on images that they were not trained on."""
    calibrated: list[CalibratedTeacher] = []
    logits, labels, temperatures = [], [], []
    for number, teacher in enumerate(config.teachers):
        model = find(teacher.model)
        if model is None:
            own = _trained_here(config, teacher, number, data, folder / f"teacher-{number}", side)
            rows = data.manifest.rows("train", labelled=True)
        else:
            own = [_trained_before(teacher.model, model, data)]
            rows = data.manifest.rows("validation", labelled=True)
        own_logits, own_labels = calibrate(own, data, rows)
        logits.append(own_logits / own[0].temperature)
        labels.append(own_labels)
        temperatures.append(round(own[0].temperature, 4))
        calibrated += own
    label_quality = quality(
        np.concatenate(logits), np.concatenate(labels), temperature=1.0, min_confidence=config.min_confidence
    )
    return calibrated, {**label_quality, "temperature": temperatures, "models": len(calibrated)}


def _trained_before(name: str, model: Any, data: Data) -> CalibratedTeacher:
    card = model.card
    if tuple(card.classes) != data.manifest.classes:
        missing = [c for c in data.manifest.classes if c not in card.classes] or ["none, but their order differs"]
        raise ModelError(
            f"The classes of the teacher {name} are not those of the data; it lacks: {', '.join(missing[:5])}. Give "
            "one that was trained on these classes."
        )
    progress.note(
        f"The teacher {name} may have been trained on these labels, so its confidence is calibrated on the validation "
        "images."
    )
    return CalibratedTeacher(model, card.weights_sha256, np.zeros(0, np.int64))


def _trained_here(
    config: SelftrainConfig, teacher: TeacherConfig, number: int, data: Data, folder: Path, side: SideBySide
) -> list[CalibratedTeacher]:
    """Return one model per fold of the labelled train rows, each trained on the other folds."""
    rows = data.manifest.rows("train", labelled=True)
    parts = _folds(config, data, rows)
    if teacher.weights:
        folds = transferred(config, teacher, data, parts, folder)
        return [CalibratedTeacher(fold.model, fold.identity, fold.seen) for fold in folds]
    student = StudentConfig(model=teacher.model, options=teacher.options)
    batch = config.batch_size
    noise = config.noise if config.teacher_noise is None else config.teacher_noise
    each_seen = [np.setdiff1d(rows, held) for held in parts]

    def fold(k: int) -> Part[Trained]:
        images = training_set(data, each_seen[k], config.teacher_steps, batch, evaluations=EVALUATIONS)
        seed = config.seed + 1000 * number + k
        return part(config, student, images, from_labels, folder / f"fold-{k}", seed, noise=noise)

    models = [trained.load() for trained in side.all([fold(k) for k in range(len(parts))])]
    return [
        CalibratedTeacher(model, model.card.weights_sha256, seen) for model, seen in zip(models, each_seen, strict=True)
    ]


def _folds(config: SelftrainConfig, data: Data, rows: np.ndarray) -> list[np.ndarray]:
    """Return the held-out rows of each fold; fewer folds if a class has few images or groups."""
    own = data.manifest.select(rows)
    identity = own.digest if own.group is None else own.group
    fewest = min(len(np.unique(identity[own.label == k])) for k in range(len(own.classes)))
    count = min(config.folds, fewest)
    if count < 2:
        raise DataError(
            f"A class of {config.data.path} has only one training image, so no teacher can be trained without it. Add "
            "labels, or give a trained teacher: --teacher FOLDER."
        )
    if count < config.folds:
        progress.note(f"The smallest class has {fewest} training images or groups: using {count} folds.")
    held = SPLITS.index("validation")
    return [rows[part.split == held] for part in split_folds(own, count, seed=config.seed)]
