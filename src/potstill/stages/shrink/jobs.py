"""Trainings as jobs: each is a student or a control of one recipe and seed, a cell of `potstill.scheduling`."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from potstill import artifacts
from potstill.compress import quantize as quantizing
from potstill.config import build
from potstill.model_files.folder import read_card
from potstill.models.outputs import Classifier, bare
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.distill.files import calibration_images
from potstill.stages.distill.train import trainings
from potstill.stages.recipe import DataConfig, Recipe, TeacherConfig, Views
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.test_split import clean_logits
from potstill.stages.training import Trained

CALIBRATION = 256  # training images for the ranges of activations
VALIDATED = "validated"


Kind = Literal["student", "control"]


@dataclass(frozen=True)
class Job:
    """One training of a student or a control.

    recipe: as JSON. folder: of the experiment; stores: of the teacher's logits. bits: of the weights for which
    validation accuracy is simulated, besides float.
    """

    recipe: str
    folder: str
    stores: str
    kind: Kind
    seed: int
    bits: tuple[int, ...] = (8,)

    def of(self, kind: Kind, seed: int) -> Job:
        """Return the same training of another kind or seed."""
        return dataclasses.replace(self, kind=kind, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return dataclasses.asdict(self)

    @property
    def place(self) -> Path:
        """The folder of the trained model."""
        return Path(self.folder) / {"student": "distill", "control": "control"}[self.kind] / f"seed-{self.seed}"

    def carry_out(self) -> Outcome:
        """Train and validate, unless that is finished."""
        recipe = build(Recipe, json.loads(self.recipe))
        each = trainings(recipe, *prepared(recipe, Path(self.stores)), Path(self.folder), Path(self.stores))
        trained = each.student(self.seed) if self.kind == "student" else each.control(self.seed)
        correct = _validated(self, trained, each.data)
        return Outcome(
            seconds=trained.record["seconds"],
            epochs=recipe.train.epochs,
            accuracy={bits: 100 * float(right.mean()) for bits, right in correct.items()},
            correct=correct,
        )


@dataclass(frozen=True)
class Outcome:
    """The result of a job. seconds: of training. accuracy: on validation in percent, by bits, 32 for float.

    correct: bool [N] by bits: which labelled validation images are classified correctly.
    """

    seconds: float
    epochs: int
    accuracy: dict[int, float]
    correct: dict[int, np.ndarray]


def _validated(job: Job, trained: Trained, data: Data) -> dict[int, np.ndarray]:
    """Return which validation images are classified correctly by bits, computing what is not recorded."""
    inputs = {"weights": read_card(trained.folder).weights_sha256}  # not the record, which has seconds
    place = job.place / VALIDATED
    every = (32, *job.bits)
    missing = [bits for bits in every if artifacts.finished(place / str(bits)) is None]
    marks = validated(trained.load(), data, missing) if missing else {}
    result = {}
    for bits in every:
        found = artifacts.stage(place / str(bits), inputs, lambda bits=bits: {"correct": marks[bits]})
        result[bits] = np.frombuffer(found["correct"].encode(), np.uint8) == ord("1")
    return result


def prepared(recipe: Recipe, stores: Path) -> tuple[Data, TeacherSource]:
    """Return data and teacher of a recipe; those of one process and one input size share them."""
    facts = {"data": recipe.data.to_json(), "teacher": recipe.teacher.to_json(), "seed": recipe.seed}
    return _prepared(json.dumps(facts), recipe.student.size or 0, stores)


@functools.lru_cache(maxsize=4)
def _prepared(facts: str, side: int, stores: Path) -> tuple[Data, TeacherSource]:
    settings = json.loads(facts)
    data = dataset.prepare(build(DataConfig, settings["data"]), at_least=side)
    teacher = build(TeacherConfig, settings["teacher"])
    place = stores / f"teacher-at-{side}" if side else stores / "teacher"
    return data, prepare_teacher(teacher, data, place, views=Views(), seed=settings["seed"])


def validated(model: Classifier, data: Data, bits: Sequence[int]) -> dict[int, str]:
    """Return which validation images a model classifies correctly, "1" or "0" each, by bits of its weights.

    32 is the float model; the others are simulated after post-training quantization, with 8-bit activations.
    """
    rows = data.manifest.rows("validation", labelled=True)
    label = data.manifest.label[rows]

    def marks(one: Classifier) -> str:
        return "".join("01"[int(right)] for right in clean_logits(one.eval(), data, rows).argmax(1) == label)

    result = {32: marks(model)} if 32 in bits else {}
    if few := [number for number in bits if number < 32]:
        plain = Classifier(bare(model.network), model.card).cpu().eval()
        images = plain.prepare(torch.from_numpy(calibration_images(plain, data, CALIBRATION)))
        floating = quantizing.fold_batchnorm(plain.network, images[:2])
        observed = quantizing.observe(floating, images.split(64))
        for number in few:
            result[number] = marks(Classifier(quantizing.quantized(floating, observed, weight_bits=number), model.card))
    return result
