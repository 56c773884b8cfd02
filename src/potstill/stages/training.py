"""`train_classifier`: trains a network for any stage, with a teacher or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.data.loader import Order
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.freeze import hold_statistics
from potstill.models.outputs import Classifier, bare
from potstill.objectives.balance import balanced
from potstill.objectives.feature_terms import Wiring, wire
from potstill.objectives.objective import Term
from potstill.stages.dataset import Data
from potstill.stages.recipe import Views
from potstill.stages.teacher.prepared import NO_TEACHER, TeacherSource, TrainingContext
from potstill.stages.watch import Watch
from potstill.training import devices, engine, loop
from potstill.training.autotune import ExecutionPlan
from potstill.training.settings import TrainConfig


@dataclass(frozen=True)
class TrainingJob:
    """The settings of one training, except for its network and its images.

    teacher: None for a control, whose terms need none. seed: of the order of images, of new layers and of dropout.
    labelled_share: fraction of labelled images in each batch, 0..1, if some are unlabelled; None samples all equally.
    aux_weight: weight of the terms of auxiliary heads. steps_per_epoch: None is one pass over the images. groups:
    parameter groups (`engine.fit`).
    """

    terms: tuple[Term, ...]
    train: TrainConfig
    views: Views
    seed: int
    teacher: TeacherSource | None = None
    labelled_share: float | None = None
    aux_weight: float = 0.3
    steps_per_epoch: int | None = None
    groups: loop.Groups | None = None
    title: str = "Training"


@dataclass(frozen=True)
class Trained:
    """One trained network: its folder, and the record of its training."""

    folder: Path
    seed: int
    record: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Validation accuracy of the saved weights, in percent."""
        return float(self.record["validation_accuracy"]["kept"])

    def load(self) -> Classifier:
        """Return the trained model."""
        return load_model(self.folder)


def train_classifier(network: Classifier, data: Data, job: TrainingJob, folder: Path) -> Trained:
    """Train `network` in place and save it into `folder`, resuming from a checkpoint if there is one.

    Terms may add layers that are trained with the network and not saved; under SimKD the saved network ends in the
    teacher's classifier. The record has validation accuracy, steps, seconds, precision and memory format, and the
    numbers of saved and additional parameters. Asserts that the teacher did not change.
    """
    on, classes = devices.device(), data.manifest.classes
    teacher, views, student = job.teacher or NO_TEACHER, job.views, network.to(on)
    if job.train.batchnorm == "fixed":
        hold_statistics(bare(student.network))
    loader = data.loader(augment=views.augment, seed=views.seed, device=on, mix=views.mix, mix_alpha=views.mix_alpha)
    order = _order(job, data)
    steps = job.train.epochs * order.steps_per_epoch
    counts = np.bincount(data.manifest.label[data.manifest.rows("train", labelled=True)], minlength=len(classes))
    terms = balanced(job.terms, counts, job.train.balance)
    wiring = wire_terms(terms, student, teacher, data, views=views, steps=steps, seed=job.seed)
    objective = teacher.objective(terms, TrainingContext(data, views, wiring, steps, job.aux_weight))
    trained = teacher.trained_with(wiring.student, job.seed)
    # The plan depends on the student alone, so that student and control are computed in the same way.
    plan = engine.plan_training(student, job.train, order)
    watch = Watch(job.terms, teacher.validation_logits(data))
    fitted = engine.fit(
        trained,
        objective,
        loader,
        order,
        job.train,
        folder=folder,
        seed=job.seed,
        validate=watch.validator(data, loader),
        watch=watch,
        groups=job.groups,
        plan=plan,
        title=job.title,
    )
    teacher.assert_unchanged()
    save_model(wiring.student, folder)
    teacher.save_beside(trained, folder)
    counts = {
        "parameters": zoo.count_parameters(wiring.student),
        "extra_parameters": zoo.count_parameters(objective.learned),
    }
    return Trained(folder, job.seed, {**fitted.to_json(), **counts})


def plan_of_job(network: Classifier, data: Data, job: TrainingJob) -> ExecutionPlan:
    """Return the execution plan of a training, which depends on the network alone."""
    return engine.plan_training(network.to(devices.device()), job.train, _order(job, data))


def _order(job: TrainingJob, data: Data) -> Order:
    return Order(
        data.manifest,
        batch_size=job.train.batch_size,
        seed=job.seed,
        views=job.views.number(job.train.epochs),
        labelled_share=job.labelled_share,
        steps_per_epoch=job.steps_per_epoch,
    )


def wire_terms(
    terms: Sequence[Term],
    student: Classifier,
    teacher: TeacherSource,
    data: Data,
    *,
    views: Views,
    steps: int,
    seed: int,
) -> Wiring:
    """Return the features and layers that the terms need; raise `ConfigError` if the networks do not have them."""
    rows = torch.from_numpy(data.manifest.rows("train"))
    return wire(terms, student, teacher.network, rows=rows, steps=steps, seed=seed, mixed=views.mix is not None)
