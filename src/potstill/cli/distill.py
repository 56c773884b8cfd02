"""The command that trains a student with a teacher: distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from potstill.cli.common import call
from potstill.cli.options import (
    IMAGES,
    NETWORKS,
    TRAINING,
    Augment,
    Balance,
    BatchSize,
    Data,
    FirstSeed,
    Fit,
    Gpus,
    Group,
    Input,
    Json,
    LearningRate,
    Limit,
    MaxBytes,
    MaxDrop,
    MaxLatency,
    MinAccuracy,
    Out,
    Quiet,
    Ray,
    Reject,
    Seeds,
    Select,
    Target,
    TeacherWeights,
    TestFrom,
    Unlabelled,
    Workers,
    option,
)

LOSS = "Loss"


def distill(
    data: Data,
    teacher: Annotated[
        str, option(NETWORKS, "A name, a run or stage folder, or an ONNX file; auto chooses by the images.")
    ] = "auto",
    student: Annotated[
        str, option(NETWORKS, "A name (NAME@LAYER is truncated after a layer), or a run or stage folder; or auto.")
    ] = "auto",
    teacher_weights: TeacherWeights = None,
    student_weights: Annotated[
        Path | None,
        option(NETWORKS, "Initial weights of any classes, for a name: a file, blocks:FILE, package:NAME, hub or auto."),
    ] = None,
    student_size: Annotated[int | None, option(NETWORKS, "Input size in pixels a side, for a name.", rare=True)] = None,
    teacher_epochs: Annotated[int | None, option(TRAINING, "Epochs for a teacher without weights.", rare=True)] = None,
    alpha: Annotated[float | None, option(LOSS, "Weight of the labels' loss, 0 to 1 (default: 0.1).")] = None,
    temperature: Annotated[float | None, option(LOSS, "Softmax temperature, above 0 (default: 2).")] = None,
    loss: Annotated[str | None, option(LOSS, "The distillation loss: a name, or FILE.py:FUNCTION.")] = None,
    epochs: Annotated[int | None, option(TRAINING, "Epochs of student and control (default: 30).")] = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    select: Select = None,
    balance: Balance = None,
    seeds: Seeds = None,
    seed: FirstSeed = None,
    labels: Annotated[int | None, option(IMAGES, "Number of labels the student gets (default: all).")] = None,
    unlabelled: Unlabelled = None,
    fit: Fit = None,
    limit: Limit = None,
    group: Group = None,
    test_from: TestFrom = None,
    allow_empty: Annotated[bool, option(IMAGES, "Accept classes without images.", "--allow-empty", rare=True)] = False,
    views: Annotated[
        int | None, option(IMAGES, "Augmented views of each image (default: by the teacher's cost).", rare=True)
    ] = None,
    augment: Augment = None,
    min_accuracy: MinAccuracy = None,
    max_drop: MaxDrop = None,
    max_bytes: MaxBytes = None,
    max_latency: MaxLatency = None,
    reject: Reject = None,
    target: Target = None,
    input: Input = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a small student with a large teacher, beside a control. Both are exported, measured and reported."""
    call("distill", locals(), trains=True)
