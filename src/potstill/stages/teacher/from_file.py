"""A teacher whose predictions lie in a file: logits, probabilities or labels, one for each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from potstill import artifacts, progress
from potstill.errors import ConfigError, DataError
from potstill.models.class_map import some
from potstill.models.hooks import Tap
from potstill.models.weights import sha256
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
from potstill.teachers.from_file import GivenTeacher
from potstill.teachers.prediction_files import Answers, is_answers, matched, read_answers
from potstill.words import plural


@dataclass(frozen=True, eq=False, kw_only=True)
class FileTeacher(TeacherSource):
    """Predictions of a file, the same for every view of an image."""

    given: GivenTeacher

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        """Return it as `Batch -> Outputs`; there are no features."""
        progress.note("The teacher's predictions come from a file, one for each image: its views share the same one.")
        return self.given

    def logits(self, data: Data, rows: np.ndarray) -> np.ndarray | None:
        """Return its logits [N, K] for images that all have one in the file, else None."""
        chosen = torch.from_numpy(rows)
        return self.given.of(chosen).numpy() if bool(self.given.covers(chosen).all()) else None


def _prepare(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    card, file = config.card or CardConfig(), Path(config.model)
    answers = read_answers(file, kind=card.output, classes=card.classes or None)
    class_map = match_to_data(answers.classes or _assumed(answers, data), config, data)
    place = matched(answers, data.manifest)
    _check_complete(answers, place, data)
    teacher = FileTeacher(
        given=GivenTeacher(class_map(torch.from_numpy(answers.logits)).numpy(), place),
        card=plain_card(config.model, data),
        identity=artifacts.fingerprint([sha256(file), class_map.columns]),
        title=f"Read the teacher's predictions from {file.name}",
        known=class_map.known,
    )
    return replace(teacher, record=accuracy_record(teacher.validation_logits(data), data))


def _assumed(answers: Answers, data: Data) -> tuple[str, ...]:
    classes = data.manifest.classes
    if answers.logits.shape[1] == len(classes):
        progress.note(
            f"{Path(answers.file).name} does not name its classes; they are taken in the order of the data's: "
            f"{some(classes)}. Name them with teacher.card.classes if that is wrong."
        )
        return classes
    raise ConfigError(
        f"{answers.file} has answers for {plural(answers.logits.shape[1], 'class')} without names; the data has "
        f"{len(classes)}. Name them in their order with teacher.card.classes; the data has {some(classes, 10)}."
    )


def _check_complete(answers: Answers, place: np.ndarray, data: Data) -> None:
    rows = data.manifest.rows("train")
    lacking = rows[place[rows] < 0]
    if len(lacking):
        names = some([data.manifest.name(row) for row in lacking])
        raise DataError(
            f"{answers.file} has no answer for {len(lacking):,} of {plural(len(rows), 'training image')}: {names}. Add "
            "them, or leave these images out of the data."
        )
    spare = len(answers.logits) - len(set(place[place >= 0].tolist()))
    if spare:
        progress.note(f"{Path(answers.file).name} has {plural(spare, 'answer')} about images that are not in the data.")


KIND = Kind(lambda config: is_answers(config.model), lambda config: 0, _prepare)
