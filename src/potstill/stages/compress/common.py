"""Common parts of pruning, quantization and export: model, data, teacher, fine-tuning and evaluation."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from potstill import artifacts, progress
from potstill.config import Config, read_yaml
from potstill.data.draws import drawn
from potstill.data.loader import images_per_step
from potstill.errors import ConfigError, ModelError
from potstill.evaluation import metrics
from potstill.model_files import open
from potstill.model_files.onnx_input import InputForm
from potstill.models import zoo
from potstill.models.inspect.plain_layers import has_depthwise
from potstill.models.outputs import Classifier, bare
from potstill.objectives.objective import check, check_parts, control_terms
from potstill.stages import dataset, rejection, test_split
from potstill.stages.compress import data_settings
from potstill.stages.dataset import Data
from potstill.stages.distill.files import calibration_images, gate_images
from potstill.stages.recipe import (
    REJECT,
    TARGET,
    DataConfig,
    ObjectiveConfig,
    Requirement,
    TargetDevice,
    TeacherConfig,
    Views,
)
from potstill.stages.teacher import input_size
from potstill.stages.teacher.network import NetworkTeacher
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.stages.training import TrainingJob, train_classifier
from potstill.training import engine
from potstill.training.settings import TrainConfig

ORIGINAL = "original"
NO_TEACHER = "none"
HELD_OUT = 1024  # validation images for the sensitivity of single layers


class CompressConfig(Config):
    """The model to compress, its data, and the teacher and budget of fine-tuning."""

    model: str = Field(description="a run or stage folder, or a name with weights")
    weights: str | None = None
    options: dict[str, Any] = {}
    data: DataConfig | None = Field(default=None, description="null: the data of the run")
    teacher: str | None = Field(
        default=None, description="null: the teacher of the run, or the uncompressed model; 'none': no teacher"
    )
    teacher_weights: str | None = None
    objective: ObjectiveConfig = ObjectiveConfig(temperature=4)
    train: TrainConfig = TrainConfig()
    images: int | None = Field(default=None, ge=1, description="train on this many images, instead of train.epochs")
    augment: str | list[Any] = Field(default="auto", description="augmentation policy")
    views: int | None = Field(default=None, ge=1, description="number of views of each image; null: one per epoch")
    seed: int = Field(default=0, ge=0, description="random seed")
    reject: Requirement | None = Field(default=None, description=REJECT)
    target: TargetDevice | None = Field(default=None, description=TARGET)
    input: InputForm = Field(
        default="raw", description="what the ONNX files take: raw (photos of any size) or prepared (float32 in 0..1)"
    )
    calibration: int = Field(default=512, ge=8, description="training images for calibration and batch statistics")

    @model_validator(mode="before")
    @classmethod
    def _images(cls, settings: Any) -> Any:
        return data_settings.completed(settings)


@dataclass(frozen=True)
class CompressionSetup:
    """A model to compress, its data, and the settings of fine-tuning.

    source: path of the images. teacher: None if it is the uncompressed model or there is none (see teacher_name).
    precision: required of the answers (`rejection`), None without any. images: number of calibration images. steps: per
    epoch. seed: of the order of images; that of the views, on which
    cached logits depend, is in `views`.
    """

    model: Classifier
    data: Data
    source: str
    train: TrainConfig
    views: Views
    objective: ObjectiveConfig
    teacher: TeacherConfig | None
    teacher_name: str
    images: int
    steps: int
    seed: int
    precision: float | None = None

    @functools.cached_property
    def calibration(self) -> Tensor:
        """Training images without augmentation, normalised for the network: [N, C, H, W]."""
        return self.model.prepare(torch.from_numpy(self.raw_calibration))

    @functools.cached_property
    def raw_calibration(self) -> np.ndarray:
        """The same images in 0..1."""
        images = calibration_images(self.model, self.data, self.images)
        if len(images) < self.images:
            progress.note(f"Using {len(images)} images for calibration instead of {self.images}: there are no more.")
        return images

    @functools.cached_property
    def gated(self) -> Tensor:
        """Validation images in 0..1 at the model's size, on which files are compared with what they should compute."""
        return gate_images(self.model, self.data)

    @property
    def facts(self) -> dict[str, Any]:
        """The data's part of the summary."""
        return self.data.facts(self.source)

    @property
    def test_label(self) -> np.ndarray:
        """The labels of the test images, int64 [N]."""
        manifest = self.data.manifest
        return manifest.label[manifest.rows("test", labelled=True)]

    @property
    def example(self) -> Tensor:
        """Two images, to trace the network."""
        return self.calibration[:2]

    @functools.cached_property
    def held_out(self) -> tuple[Tensor, np.ndarray]:
        """Validation images [N, C, H, W], normalised, and their labels."""
        rows = drawn(self.data.manifest.rows("validation", labelled=True), HELD_OUT, "held out")
        image = self.data.loader().clean_batch(rows).image
        return self.model.prepare(image), self.data.manifest.label[rows]

    def loss(self, network: torch.nn.Module) -> float:
        """Return the cross-entropy of a network on the held-out images."""
        image, label = self.held_out
        network.eval()
        with torch.inference_mode():
            logits = torch.cat([network(part) for part in image.split(256)])
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(label)))


def open_model(config: CompressConfig) -> CompressionSetup:
    """Return the model and its data; raise a `UserError` if they do not match."""
    run = Path(config.model) if (Path(config.model) / "recipe.yaml").is_file() else None
    model = open.find(config.model)
    if model is not None and not isinstance(model, Classifier):
        raise ModelError(f"{config.model} is an exported file. Give the run or stage folder that it came from.")
    settings = data_settings.settings_of(config.model, config.data)
    size = max(model.card.crop) if model else input_size.own_size(config.model)
    if model is not None:
        settings = settings.model_copy(update={"fit": model.card.fit})
    data = dataset.prepare(settings, at_least=size)
    if model is None:
        if config.weights is None:
            raise ModelError(
                f"{config.model} is the name of an architecture, not a trained model. Add --weights FILE, or give a "
                "run or stage folder."
            )
        model = data.model(config.model, weights=config.weights, options=config.options)
    _check(model, data, config)
    precision = rejection.precision_of(config.reject, model.card)
    rejection.refuse(precision, data)
    model = Classifier(bare(model.network), model.card.replace(reject={}, device={})).eval()
    check_parts(config.objective.loss_terms, config.train.accumulate)
    check(config.objective.loss_terms, classes=len(model.card.classes), teacher=True)
    train, steps = _budget(config, data)
    teacher, name = _teacher(config, run)
    return CompressionSetup(
        model=model,
        data=data,
        source=settings.path,
        train=train,
        views=Views(config.augment, config.views and min(config.views, train.epochs), config.seed),  # others are unused
        objective=config.objective,
        teacher=teacher,
        teacher_name=name,
        images=config.calibration,
        steps=steps,
        seed=config.seed,
        precision=precision,
    )


def _check(model: Classifier, data: Data, config: CompressConfig) -> None:
    classes = data.manifest.classes
    if tuple(model.card.classes) != tuple(classes):
        raise ModelError(
            f"The classes of {config.model} are {', '.join(model.card.classes[:5])}, ... and those of the data "
            f"{', '.join(classes[:5])}, ...: they must be the same, in the same order."
        )
    if tuple(data.crop) != tuple(model.card.crop):
        progress.note(
            f"Resizing images from {data.crop[0]}x{data.crop[1]} to the model's input size of {model.card.crop[0]}x"
            f"{model.card.crop[1]} pixels, which may reduce accuracy."
        )


def _budget(config: CompressConfig, data: Data) -> tuple[TrainConfig, int]:
    """Return the training settings, and the steps per epoch."""
    rows = len(data.manifest.rows("train"))
    batch = images_per_step(config.train.batch_size, rows)
    if config.images is None:
        return config.train, rows // batch
    steps = max(1, config.images // batch)
    epochs = math.ceil(steps / (rows // batch))
    return config.train.model_copy(update={"epochs": epochs}), math.ceil(steps / epochs)


def _teacher(config: CompressConfig, run: Path | None) -> tuple[TeacherConfig | None, str]:
    """Return the settings of the teacher, None if there is none or it is the uncompressed model; and its name."""
    if config.teacher == NO_TEACHER:
        return None, NO_TEACHER
    if config.teacher is not None:
        return TeacherConfig(model=config.teacher, weights=config.teacher_weights), config.teacher
    name = _teacher_of(run) if run else None
    return (TeacherConfig(model=name), name) if name else (None, ORIGINAL)


def _teacher_of(run: Path) -> str | None:
    """Return the path of a run's teacher; None if it does not exist."""
    if (run / "teacher" / zoo.CARD).is_file():
        return str(run / "teacher")
    name = read_yaml(run / "recipe.yaml").get("teacher", {}).get("model")
    return name if name and Path(name).exists() else None


def teacher_of(setup: CompressionSetup, folder: Path, stores: Path | None = None) -> TeacherSource | None:
    """Return the prepared teacher, None to train without one."""
    if setup.teacher_name == NO_TEACHER:
        return None
    if setup.teacher is not None:
        place, balance = folder / "teacher", setup.train.balance
        teacher = prepare_teacher(setup.teacher, setup.data, place, views=setup.views, seed=setup.seed, balance=balance)
    else:
        teacher = uncompressed(setup.model)
    stored = setup.teacher.stored if setup.teacher else True
    return teacher.bind(setup.data, Replay(setup.views, setup.train.epochs, 1, stores or folder / "stores", stored))


def uncompressed(model: Classifier) -> NetworkTeacher:
    """Return a copy of the uncompressed model as the teacher of the compressed one."""
    identity = model.card.weights_sha256 or artifacts.fingerprint(model.card.to_json())
    title = "Using the uncompressed model as the teacher"
    return NetworkTeacher(model=engine.clone(model), card=model.card, identity=identity, title=title)


def recover(
    student: Classifier, setup: CompressionSetup, teacher: TeacherSource | None, folder: Path, *, title: str
) -> dict[str, Any]:
    """Train `student` in place with the objective of the settings; save it and return the record of its folder."""
    terms = setup.objective.loss_terms
    job = TrainingJob(
        terms if teacher else control_terms(terms),
        setup.train,
        setup.views,
        setup.seed,
        teacher=teacher,
        labelled_share=None if teacher else 1.0,
        aux_weight=setup.objective.aux_weight,
        steps_per_epoch=setup.steps,
        title=title,
    )
    inputs = {
        "data": setup.data.manifest.fingerprint,
        "terms": [term.to_json() for term in job.terms],
        "train": setup.train.to_json(),
        "augment": [setup.views.augment, setup.views.seed, setup.views.number(setup.train.epochs)],
        "teacher": teacher.identity if teacher else None,
        "steps": setup.steps,
        "seed": setup.seed,
        "student": student.card.compressed,
    }
    return artifacts.stage(folder, inputs, lambda: train_classifier(student, setup.data, job, folder).record)


def validation_accuracy(model: Classifier, setup: CompressionSetup) -> float:
    """Return the accuracy on the validation split, in percent."""
    rows = setup.data.manifest.rows("validation", labelled=True)
    return metrics.accuracy(test_split.clean_logits(model, setup.data, rows), setup.data.manifest.label[rows])


def warn_of_slow(figures: Mapping[str, Any]) -> bool:
    """Note files that are slower than the first; return whether there are any."""
    first = next(iter(figures.values()))["latency_ms"]
    for name, row in figures.items():
        if row.get("latency_ms", 0) > first:
            progress.note(
                f"{name} is slower than the original on this machine: {row['latency_ms']:.3g} ms per image instead of "
                f"{first:.3g} (batch 1, one thread). It is smaller, not faster; use the original if speed matters."
            )
    return any(row.get("latency_ms", 0) > first for row in figures.values())


def note_of_depthwise(network: torch.nn.Module) -> None:
    """Note why a network with depthwise convolutions is slower in 8 bits."""
    if has_depthwise(network):
        progress.note(
            "onnxruntime's 8-bit depthwise convolutions are slower than its float ones on this kind of processor. Use "
            "the 8-bit file if bytes matter, or on a device whose runtime is built for 8 bits; else the float file."
        )


def one_target(**targets: object) -> tuple[str, Any]:
    """Return the name and value of the only target that is not None; raise `ConfigError` for none or several."""
    chosen = {name: value for name, value in targets.items() if value is not None}
    if len(chosen) != 1:
        flags = ", ".join("--" + name.replace("_", "-") for name in targets)
        raise ConfigError(f"Give exactly one of {flags}; {len(chosen)} are set.")
    return next(iter(chosen.items()))
