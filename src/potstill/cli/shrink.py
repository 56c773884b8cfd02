"""The command for the whole road: shrink."""

from __future__ import annotations

from typing import Annotated, Any

from potstill.cli.common import call
from potstill.cli.options import IMAGES, Data, Gpus, Json, Mean, Out, Quiet, Ray, Std, Unlabelled, names, option

BUDGETS, TIME, TEACHER = "Budgets", "Time", "Teacher and pretrained networks"


def shrink(
    data: Data,
    max_bytes: Annotated[str | None, option(BUDGETS, "Size of the file: 300kB.")] = None,
    max_latency: Annotated[str | None, option(BUDGETS, "One image, one thread, on this machine: 2ms.")] = None,
    max_ram: Annotated[str | None, option(BUDGETS, "Peak of the activations in 8 bits: 64kB.")] = None,
    max_macs: Annotated[str | None, option(BUDGETS, "Multiply-accumulates per image: 20M.")] = None,
    min_accuracy: Annotated[float | None, option(BUDGETS, "Accuracy to be reached, in percent.")] = None,
    max_drop: Annotated[float | None, option(BUDGETS, "Points that may be lost against the teacher.")] = None,
    device: Annotated[str | None, option(BUDGETS, "Profile of a device, for the latency there.")] = None,
    to: Annotated[Any, option(BUDGETS, "Other files: tflite, c, openvino, executorch.", parser=names)] = None,
    minutes: Annotated[str | None, option(TIME, "Time for everything (default: 30).")] = None,
    seeds: Annotated[int | None, option(TIME, "Students and controls of the proof (default: 3).")] = None,
    workers: Annotated[int | None, option(TIME, "Trainings at a time (default: one a core, up to 4).")] = None,
    ray: Ray = None,
    gpus: Gpus = None,
    teacher: Annotated[
        str | None, option(TEACHER, "A name or a folder (default: the best pretrained network at hand).")
    ] = None,
    teacher_weights: Annotated[str | None, option(TEACHER, "Weights of a teacher that is given by name.")] = None,
    model: Annotated[str | None, option(TEACHER, "One more pretrained network to start from, by name.")] = None,
    weights: Annotated[str | None, option(TEACHER, "Its weights: a file, package:NAME, or hub.")] = None,
    mean: Mean = None,
    std: Std = None,
    unlabelled: Unlabelled = None,
    size: Annotated[int | None, option(IMAGES, "Pixels a side (default: several are tried).")] = None,
    limit: Annotated[int | None, option(IMAGES, "Use about this many images, stratified by class.")] = None,
    group: Annotated[str | None, option(IMAGES, "Which images stay in one split (docs/data.md).")] = None,
    seed: Annotated[int | None, option(IMAGES, "Random seed.")] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find the smallest model that does the job, and prove it.

    Without a budget: the smallest model that is at most a point worse than the best one found in 30 minutes.
    """
    call("shrink", locals(), trains=True)
