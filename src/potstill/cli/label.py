"""The command that writes soft labels: label."""

from __future__ import annotations

from typing import Annotated

from potstill.cli.common import call
from potstill.cli.options import (
    MACHINES,
    NETWORKS,
    Augment,
    Data,
    Fit,
    Gpus,
    Group,
    Json,
    Limit,
    Out,
    Quiet,
    Ray,
    Seed,
    TeacherWeights,
    TestFrom,
    Views,
    Workers,
    option,
)


def label(
    data: Data,
    teacher: Annotated[str, option(NETWORKS, "A name, a run or stage folder, or an ONNX file.")],
    teacher_weights: TeacherWeights = None,
    views: Views = None,
    top_k: Annotated[int | None, option(NETWORKS, "Classes kept of each output (default: by size).")] = None,
    augment: Augment = None,
    fit: Fit = None,
    limit: Limit = None,
    group: Group = None,
    test_from: TestFrom = None,
    seed: Seed = None,
    part: Annotated[str | None, option(MACHINES, "Label the I-th of N parts only: I/N (docs/scaling.md).")] = None,
    workers: Workers = None,
    ray: Ray = None,
    gpus: Gpus = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a teacher's soft labels of every training image. They serve any number of students."""
    call("label", locals(), trains=True)
