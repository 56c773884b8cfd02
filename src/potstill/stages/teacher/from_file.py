"""Teachers from elsewhere: an ONNX file that does not describe itself, and answers that lie in a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from potstill import artifacts, progress
from potstill.errors import ConfigError, DataError
from potstill.model_files.onnx import OnnxModel, describe
from potstill.models.card import Card
from potstill.models.class_map import some
from potstill.models.weights import sha256
from potstill.stages.dataset import Data
from potstill.stages.recipe import CardConfig, OneTeacher
from potstill.stages.teacher.prepared import Taught, class_map_of, record_of, tell
from potstill.teachers.from_file import GivenTeacher
from potstill.teachers.prediction_files import Answers, matched, read_answers


def described(config: OneTeacher, data: Data) -> OnnxModel:
    """Return an ONNX file from elsewhere as its `card` in the recipe describes it."""
    card = config.card or CardConfig()
    if not card.classes:
        raise ConfigError(
            f"teacher.card.classes: {config.model} does not say which output is which class. List its classes in the "
            f"order of its outputs; the data has {some(data.manifest.classes, 10)}."
        )
    channels = len(card.mean or card.std or (0,) * data.channels)
    if card.mean is None or card.std is None:
        progress.note(f"teacher.card gives no mean or no std, so {config.model} is shown images in 0..1 as they are.")
    more = {"size": card.size} if card.size else {}
    mean, std = card.mean or (0.0,) * channels, card.std or (1.0,) * channels
    full = describe(Path(config.model), classes=card.classes, mean=mean, std=std, **more)
    probabilities = None if card.output is None else card.output == "probabilities"
    return OnnxModel(Path(config.model), card=full, probabilities=probabilities)


def given(config: OneTeacher, data: Data) -> Taught:
    """Return a teacher whose answers lie in a file."""
    card, ours = config.card or CardConfig(), data.manifest.classes
    file = Path(config.model)
    answers = read_answers(file, kind=card.output, classes=card.classes or None)
    theirs = answers.classes or _assumed(answers, data)
    class_map = class_map_of(theirs, config, data)
    tell(class_map, theirs, ours, f"The teacher {config.model}")
    place = matched(answers, data.manifest)
    _check_complete(answers, place, data)
    teacher = GivenTeacher(class_map(torch.from_numpy(answers.logits)).numpy(), place)
    identity = artifacts.fingerprint([sha256(file), class_map.columns])
    made = Taught(None, plain_card(config.model, data), identity, f"Read the teacher's answers from {file.name}", {},
                  given=teacher, known=class_map.known)  # fmt: skip
    rows = data.manifest.rows("validation", labelled=True)
    said = made.said(data, rows)
    return made if said is None else dataclasses.replace(made, record=record_of(said, data, rows))


def _assumed(answers: Answers, data: Data) -> tuple[str, ...]:
    ours = data.manifest.classes
    if answers.logits.shape[1] == len(ours):
        progress.note(
            f"{Path(answers.file).name} does not name its classes; they are taken in the order of the data's: "
            f"{some(ours)}. Name them with teacher.card.classes if that is wrong."
        )
        return ours
    raise ConfigError(
        f"{answers.file} has answers for {answers.logits.shape[1]} classes without names; the data has {len(ours)}. "
        f"Name them in their order with teacher.card.classes; the data has {some(ours, 10)}."
    )


def _check_complete(answers: Answers, place: np.ndarray, data: Data) -> None:
    rows = data.manifest.rows("train")
    lacking = rows[place[rows] < 0]
    if len(lacking):
        names = some([data.manifest.name(row) for row in lacking])
        raise DataError(
            f"{answers.file} has no answer for {len(lacking)} of {len(rows)} training images: {names}. Add them, or "
            "leave these images out of the data."
        )
    spare = len(answers.logits) - len(set(place[place >= 0].tolist()))
    if spare:
        progress.note(f"{Path(answers.file).name} has {spare} answers about images that are not in the data.")


def plain_card(model: str, data: Data) -> Card:
    nothing, everything = (0.0,) * data.channels, (1.0,) * data.channels
    return Card(model, data.manifest.classes, data.channels, data.crop, nothing, everything, data.resize, data.crop)
