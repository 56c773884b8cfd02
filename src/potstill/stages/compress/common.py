"""What pruning and quantizing share: the model, its data, its teacher, training it back, and the last measurement."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from potstill import artifacts, progress
from potstill.config import Config, build, read_yaml
from potstill.errors import ConfigError, DataError, ModelError
from potstill.evaluation import metrics
from potstill.evaluation.measured import measured
from potstill.model_files import open
from potstill.model_files.latency import latency_ms
from potstill.model_files.packed import load_packed
from potstill.model_files.runtimes import open_exported
from potstill.models import zoo
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier, bare
from potstill.models.weights import sha256
from potstill.objectives.objective import check, control_terms
from potstill.stages import dataset, test_split
from potstill.stages.dataset import Data
from potstill.stages.distill.files import calibration_images
from potstill.stages.recipe import DataConfig, ObjectiveConfig, TeacherConfig, Views
from potstill.stages.teacher import input_size
from potstill.stages.teacher.network import NetworkTeacher
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Replay, TeacherSource
from potstill.stages.training import TrainingJob, train_classifier
from potstill.training import engine
from potstill.training.predict import Model
from potstill.training.settings import TrainConfig

ORIGINAL = "original"
NO_TEACHER = "none"
HELD_OUT = 1024  # validation images that judge single layers


class CompressConfig(Config):
    """What is compressed, with which images, and who teaches while it trains again."""

    model: str = Field(description="a run or stage folder, or a name with weights")
    weights: str | None = None
    options: dict[str, Any] = {}
    data: DataConfig | None = Field(default=None, description="null: the data of the run")
    teacher: str | None = Field(default=None, description="null: the run's own, or the model as it was; or 'none'")
    teacher_weights: str | None = None
    objective: ObjectiveConfig = ObjectiveConfig(temperature=4)
    train: TrainConfig = TrainConfig()
    images: int | None = Field(default=None, ge=1, description="train on so many images, instead of train.epochs")
    augment: str | list[Any] = "auto"
    views: int | None = Field(default=None, ge=1, description="how many views of each image; null: one an epoch")
    seed: int = Field(default=0, ge=0)
    calibration: int = Field(default=512, ge=8, description="training images for ranges and batch statistics")


@dataclass(frozen=True)
class Given:
    """A model to be compressed, its data, and how it is trained again.

    source: where the images come from, as the user named it. teacher: None where the teacher is the model as it was, or
    there is none; teacher_name tells which. images: how many calibrate. steps: of an epoch. seed: of the order of
    images; the views of each image, which a stored teacher saw, have one of their own.
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

    @functools.cached_property
    def calibration(self) -> Tensor:
        """Clean training images, normalised as the network wants them: [N, C, H, W]."""
        return self.model.prepare(torch.from_numpy(self.raw_calibration))

    @functools.cached_property
    def raw_calibration(self) -> np.ndarray:
        """The same images in 0..1."""
        images = calibration_images(self.model, self.data, self.images)
        if len(images) < self.images:
            progress.note(f"There are {len(images)} training images to calibrate with; {self.images} were asked for.")
        return images

    @property
    def facts(self) -> dict[str, Any]:
        """What the summary holds of the data."""
        return self.data.facts(self.source)

    @property
    def example(self) -> Tensor:
        """Two images for the network, to see which tensor goes where."""
        return self.calibration[:2]

    @functools.cached_property
    def held_out(self) -> tuple[Tensor, np.ndarray]:
        """Validation images [N, C, H, W], normalised, and their labels."""
        rows = self.data.manifest.rows("validation", labelled=True)[:HELD_OUT]
        image = self.data.loader().clean_batch(rows).image
        return self.model.prepare(image), self.data.manifest.label[rows]

    def loss(self, network: torch.nn.Module) -> float:
        """Return the cross-entropy of a network on the held-out images."""
        image, label = self.held_out
        network.eval()
        with torch.inference_mode():
            logits = torch.cat([network(part) for part in image.split(256)])
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(label)))


def open_model(config: CompressConfig) -> Given:
    """Return the model and its data; raise a `UserError` where they do not go together."""
    run = Path(config.model) if (Path(config.model) / "recipe.yaml").is_file() else None
    found = open.find(config.model)
    if found is not None and not isinstance(found, Classifier):
        raise ModelError(f"{config.model} is an exported file. Give the run or stage folder that it came from.")
    settings = _data_settings(config, run)
    size = max(found.card.crop) if found else input_size.own_size(config.model)
    data = dataset.prepare(settings, at_least=size)
    if found is None:
        if config.weights is None:
            raise ModelError(
                f"{config.model} is the name of a network, not of a trained model. Add --weights FILE, or give a run "
                "or stage folder."
            )
        found = data.model(config.model, weights=config.weights, options=config.options)
    _check(found, data, config)
    found = Classifier(bare(found.network), found.card).eval()
    check(config.objective.loss_terms, classes=len(found.card.classes), teacher=True)
    train, steps = _budget(config, data)
    teacher, name = _teacher(config, run)
    return Given(
        model=found,
        data=data,
        source=settings.path,
        train=train,
        views=Views(config.augment, config.views, config.seed),
        objective=config.objective,
        teacher=teacher,
        teacher_name=name,
        images=config.calibration,
        steps=steps,
        seed=config.seed,
    )


def _data_settings(config: CompressConfig, run: Path | None) -> DataConfig:
    theirs = read_yaml(run / "recipe.yaml")["data"] if run else {}
    if config.data is not None:
        return build(DataConfig, theirs | config.data.model_dump(mode="json", exclude_unset=True))
    if not run:
        raise DataError(f"{config.model} does not say what images it is for. Name them with --data.")
    return build(DataConfig, theirs)


def _check(model: Classifier, data: Data, config: CompressConfig) -> None:
    classes = data.manifest.classes
    if tuple(model.card.classes) != tuple(classes):
        raise ModelError(
            f"{config.model} tells apart {', '.join(model.card.classes[:5])}, ... and the data holds "
            f"{', '.join(classes[:5])}, ...: these must be the same classes in the same order."
        )
    if tuple(data.crop) != tuple(model.card.crop):
        progress.note(
            f"The images are {data.crop[0]}x{data.crop[1]} pixels and the model was made for {model.card.crop[0]}x"
            f"{model.card.crop[1]}: they are resized, which may cost accuracy."
        )


def _budget(config: CompressConfig, data: Data) -> tuple[TrainConfig, int]:
    """Return how to train, and the steps of an epoch."""
    rows = len(data.manifest.rows("train"))
    batch = min(config.train.batch_size, rows)
    if config.images is None:
        return config.train, rows // batch
    steps = max(1, config.images // batch)
    epochs = math.ceil(steps / (rows // batch))
    return config.train.model_copy(update={"epochs": epochs}), math.ceil(steps / epochs)


def _teacher(config: CompressConfig, run: Path | None) -> tuple[TeacherConfig | None, str]:
    """Return the settings of the teacher, None where there is none or it is the model as it was; and its name."""
    if config.teacher == NO_TEACHER:
        return None, NO_TEACHER
    if config.teacher is not None:
        return TeacherConfig(model=config.teacher, weights=config.teacher_weights), config.teacher
    name = _teacher_of(run) if run else None
    return (TeacherConfig(model=name), name) if name else (None, ORIGINAL)


def _teacher_of(run: Path) -> str | None:
    """Return the path of a run's teacher; None where it has none that is still there."""
    if (run / "teacher" / zoo.CARD).is_file():
        return str(run / "teacher")
    name = read_yaml(run / "recipe.yaml")["teacher"]["model"]
    return name if name and Path(name).exists() else None


def teacher_of(given: Given, folder: Path, stores: Path | None = None) -> TeacherSource | None:
    """Return the teacher, ready to teach; None where training goes on without one."""
    if given.teacher_name == NO_TEACHER:
        return None
    if given.teacher is not None:
        teacher = prepare_teacher(given.teacher, given.data, folder / "teacher", views=given.views, seed=given.seed)
    else:
        teacher = as_it_was(given.model)
    stored = given.teacher.stored if given.teacher else True
    return teacher.bind(given.data, Replay(given.views, given.train.epochs, 1, stores or folder / "stores", stored))


def as_it_was(model: Classifier) -> NetworkTeacher:
    """Return a copy of a model as the teacher of what is made from it."""
    identity = model.card.weights_sha256 or artifacts.fingerprint(model.card.to_json())
    title = "The teacher is the model as it was"
    return NetworkTeacher(model=engine.clone(model), card=model.card, identity=identity, title=title)


def recover(
    student: Classifier, given: Given, teacher: TeacherSource | None, folder: Path, *, title: str
) -> dict[str, Any]:
    """Train `student` in place by the objective of the settings; save it and return the record of its folder."""
    terms = given.objective.loss_terms
    job = TrainingJob(
        terms if teacher else control_terms(terms),
        given.train,
        given.views,
        given.seed,
        teacher=teacher,
        aux_weight=given.objective.aux_weight,
        steps_per_epoch=given.steps,
        title=title,
    )
    inputs = {
        "data": given.data.manifest.fingerprint,
        "terms": [term.to_json() for term in job.terms],
        "train": given.train.to_json(),
        "augment": [given.views.augment, given.views.seed, given.views.number(given.train.epochs)],
        "teacher": teacher.identity if teacher else None,
        "steps": given.steps,
        "seed": given.seed,
        "student": student.card.compressed,
    }
    return artifacts.stage(folder, inputs, lambda: train_classifier(student, given.data, job, folder).record)


def validation_accuracy(model: Classifier, given: Given) -> float:
    """Return the accuracy on the validation split, in percent."""
    rows = given.data.manifest.rows("validation", labelled=True)
    return metrics.accuracy(test_split.answers(model, given.data, rows), given.data.manifest.label[rows])


def measured_files(
    networks: Mapping[str, Classifier], files: Mapping[str, Path], given: Given, folder: Path
) -> dict[str, Any]:
    """Open the test split once for all files; return the figures of each by name (docs/summary.md).

    files: read back and run; the first is the original, which the others are compared with. networks: what each file
    was made from, for parameters and multiply-accumulates. ONNX files are timed (one image, one thread).
    """
    models = {name: _read_back(file) for name, file in files.items()}
    identities = {name: sha256(file) for name, file in files.items()}
    logits = test_split.open_test(models, identities, given.data, folder / "evaluation")
    manifest = given.data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    original = logits[next(iter(files))]
    timed = {name: file for name, file in files.items() if file.suffix == ".onnx"}
    latency = dict(zip(timed, latency_ms(list(timed.values())), strict=True))
    figures = {}
    for name, file in files.items():
        counted = cost(networks[name].network, given.example)
        figures[name] = {
            "file": file.name,
            "bytes": file.stat().st_size,
            "parameters": counted.params,
            "macs": counted.total_macs,
            **measured(logits[name], label, classes=manifest.classes, reference=original),
        }
        if name in latency:
            figures[name]["latency_ms"] = round(latency[name].median_ms, 4)
    return figures


def _read_back(file: Path) -> Model:
    return open_exported(file) if file.suffix == ".onnx" else load_packed(file)


def warn_of_slow(figures: Mapping[str, Any]) -> None:
    """Note which files are slower than the first."""
    first = next(iter(figures.values()))["latency_ms"]
    for name, row in figures.items():
        if row.get("latency_ms", 0) > first:
            progress.note(
                f"{name} is slower than the original here: {row['latency_ms']:.3g} ms an image instead of {first:.3g} "
                "(batch 1, one thread). It is smaller, not faster; keep the original where speed matters."
            )


def one_target(**targets: object) -> tuple[str, Any]:
    """Return the name and value of the one target that is given; raise `ConfigError` for none or several."""
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        flags = ", ".join("--" + name.replace("_", "-") for name in targets)
        raise ConfigError(f"Give one of {flags}: how small the model shall become. {len(given)} were given.")
    return next(iter(given.items()))
