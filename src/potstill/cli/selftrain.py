"""The command that trains on unlabelled images too: selftrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from potstill.cli.common import call
from potstill.cli.options import (
    IMAGES,
    NETWORKS,
    TRAINING,
    Data,
    FirstSeed,
    Fit,
    Gpus,
    Group,
    Json,
    LearningRate,
    Limit,
    Mean,
    Out,
    Quiet,
    Ray,
    Seeds,
    Std,
    TestFrom,
    Unlabelled,
    Workers,
    option,
)

METHOD = "Method"


def selftrain(
    data: Data,
    unlabelled: Unlabelled = None,
    teacher: Annotated[
        list[str] | None, option(NETWORKS, "A name to be trained, a folder or an ONNX file; may be repeated.")
    ] = None,
    teacher_weights: Annotated[
        str | None,
        option(NETWORKS, "Of teachers given by name: a file, package:NAME, hub or auto."),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    size: Annotated[int | None, option(NETWORKS, "Input size of the teachers with weights, in pixels a side.")] = None,
    student: Annotated[str | None, option(NETWORKS, "A model's name (default: builtin:mlp).")] = None,
    large: Annotated[str | None, option(NETWORKS, "A larger model for the rounds (default: the student).")] = None,
    rounds: Annotated[int | None, option(METHOD, "Rounds in which the student becomes the teacher.")] = None,
    labels: Annotated[int | None, option(IMAGES, "Use only this many labels; the rest joins the pool.")] = None,
    method: Annotated[str | None, option(METHOD, "teachers, fixmatch or freematch (very few labels).")] = None,
    labelling: Annotated[str | None, option(METHOD, "soft or hard pseudo-labels.")] = None,
    noise: Annotated[str | None, option(METHOD, "Augmentation: auto (by model size), none, or a policy.")] = None,
    corrections: Annotated[Path | None, option(METHOD, "labels.csv of an earlier run, with labels filled in.")] = None,
    min_confidence: Annotated[float | None, option(METHOD, "Minimum confidence of a pseudo-label, 0 to 1.")] = None,
    steps: Annotated[int | None, option(TRAINING, "Training steps of every student.")] = None,
    batch_size: Annotated[int | None, option(TRAINING, "Batch size.")] = None,
    lr: LearningRate = None,
    fit: Fit = None,
    limit: Limit = None,
    group: Group = None,
    test_from: TestFrom = None,
    seeds: Seeds = None,
    seed: FirstSeed = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train on labelled and unlabelled images. Without proof that the latter helped, they are not used."""
    call("selftrain", locals(), trains=True)
