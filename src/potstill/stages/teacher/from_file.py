"""A teacher whose predictions are in a file: logits, probabilities or labels, one for each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from potstill import artifacts, progress
from potstill.artifacts import sha256
from potstill.errors import ConfigError, DataError
from potstill.models.class_map import some
from potstill.models.hooks import Tap
from potstill.stages.dataset import Data
from potstill.stages.recipe import CardConfig, OneTeacher
from potstill.stages.teacher.prepared import (
    Kind,
    Preparation,
    TeacherSource,
    accuracy_record,
    match_to_data,
    plain_card,
)
from potstill.teachers.base import Teacher
from potstill.teachers.from_file import FileOutputs
from potstill.teachers.prediction_files import Predictions, is_predictions, matched, read_predictions
from potstill.words import plural


@dataclass(frozen=True, eq=False, kw_only=True)
class FileTeacher(TeacherSource):
    """Predictions from a file, the same for every view of an image."""

    predictions: FileOutputs

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`; there are no features."""
        progress.note("The teacher's predictions are from a file: all views of an image have the same one.")
        return self.predictions

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] if the file has them for all these images, else None."""
        chosen = torch.from_numpy(rows)
        return self.predictions.of(chosen).numpy() if bool(self.predictions.covers(chosen).all()) else None


def _prepare(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    card, file = config.card or CardConfig(), Path(config.model)
    predictions = read_predictions(file, kind=card.output, classes=card.classes or None)
    class_map = match_to_data(predictions.classes or _assumed(predictions, data), config, data)
    place = matched(predictions, data.manifest)
    _check_complete(predictions, place, data)
    teacher = FileTeacher(
        predictions=FileOutputs(class_map(torch.from_numpy(predictions.logits)).numpy(), place),
        card=plain_card(config.model, data),
        identity=artifacts.fingerprint([sha256(file), class_map.columns]),
        title=f"Read the teacher's predictions from {file.name}",
        known=class_map.known,
    )
    return replace(teacher, record=accuracy_record(teacher.validation_logits(data), data))


def _assumed(predictions: Predictions, data: Data) -> tuple[str, ...]:
    classes, count = data.manifest.classes, predictions.logits.shape[1]
    if count == len(classes):
        progress.note(
            f"{Path(predictions.file).name} does not name its classes: assuming the order of the data's classes, "
            f"{some(classes)}. If that is wrong, name them with teacher.card.classes."
        )
        return classes
    raise ConfigError(
        f"{predictions.file} has predictions for {plural(count, 'unnamed class')}, but the data has {len(classes)}: "
        f"{some(classes, 10)}. Name the columns in their order with teacher.card.classes."
    )


def _check_complete(predictions: Predictions, place: np.ndarray, data: Data) -> None:
    rows = data.manifest.rows("train")
    lacking = rows[place[rows] < 0]
    if len(lacking):
        names = some([data.manifest.name(row) for row in lacking])
        raise DataError(
            f"{predictions.file} has no prediction for {len(lacking):,} of {plural(len(rows), 'training image')}: "
            f"{names}. Add them, or leave these images out of the data."
        )
    unused = len(predictions.logits) - len(set(place[place >= 0].tolist()))
    if unused:
        progress.note(
            f"Ignoring {plural(unused, 'prediction')} in {Path(predictions.file).name} for images that are not in the "
            "data."
        )


KIND = Kind(lambda config: is_predictions(config.model), lambda config: 0, _prepare)
