"""Verbs that make a run: run, demo, distill, compare."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from potstill import config, distributed, own_code
from potstill.api.experiments import STEPS, ExperimentResult, run_steps
from potstill.api.experiments import settings_of as recipe_settings
from potstill.api.keywords import settings_of
from potstill.api.results import CompareResult, RunResult
from potstill.api.verb import last_name, new_folder, one_process, shared_folder, verb
from potstill.errors import ConfigError
from potstill.scheduling import opened
from potstill.stages.compare import CompareConfig
from potstill.stages.compare import compare as compare_stage
from potstill.stages.distill.defaults import chosen
from potstill.stages.distill.run import run_recipe
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import check_writable_if_unfinished
from potstill.training.devices import init_process_group

Settings = Mapping[str, Any]
"""Nested settings, as in a recipe (docs/recipes.md)."""


@verb
def run(
    recipe: str | Path | Settings,
    overrides: Sequence[str] = (),
    *,
    budget: Literal["quick", "full"] | None = None,
    record: bool = False,
    allow_code: Sequence[str | Path] = (),
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> RunResult | ExperimentResult:
    """Carry out a recipe: teacher, controls and students, files, one look at the test split, report.

    Args:
        recipe: the path of a YAML file, the settings themselves, or the name of an experiment (`recipes`).
        overrides: "key=value" settings, such as "train.epochs=5"; of an experiment also its knobs, "epochs=5".
        budget, record: of an experiment: "quick" or "full"; write its pages below docs/experiments.
        allow_code: Python files whose losses may be executed; without it a recipe file executes no code.
        workers: trainings at a time, in local processes of one thread each (default: 1, in this process).
        ray: "auto" or the HOST:PORT of a Ray cluster that carries out the trainings; gpus: share of a GPU each needs.
        out: the run folder, by default runs/NAME; an unfinished run of the same recipe there is resumed.
        command: recorded in the summary as what was typed.

    Under torchrun all processes must call it, and process 0 returns the figures.
    """
    settings = recipe_settings(recipe)
    if out is not None:
        check_writable_if_unfinished(Path(out))  # before the images are read to choose a teacher
    if STEPS in settings:
        if distributed.world() > 1:
            raise ConfigError("An experiment works in one process. Start it without torchrun.")
        with opened(workers=workers, ray=ray, gpus=gpus) as scheduler:
            return run_steps(recipe, settings, overrides, budget, record, out, command, scheduler)
    if budget or record:
        raise ConfigError(
            "budget and record (--budget, --record) are settings of the experiments that `potstill recipes` lists, and "
            "this recipe is a single run. Leave them out; train.epochs=5 changes its budget."
        )
    built = config.build(Recipe, config.override(settings, overrides))
    own_code.check(own_code.named_in(built.to_json()))
    init_process_group()
    built, why = chosen(built)
    folder = shared_folder(built.name, "distill", built, out)
    with opened(workers=workers, ray=ray, gpus=gpus) as scheduler:
        return RunResult(run_recipe(built, folder, why=why, command=command, scheduler=scheduler), folder)


@verb
def demo(*, workers: int | None = None, out: str | Path | None = None, command: str = "potstill demo") -> RunResult:
    """Run the built-in demonstration on scikit-learn's digits: under 90 seconds on two cores, no network.

    workers: trainings at a time.
    """
    with importlib.resources.as_file(importlib.resources.files("potstill") / "recipes" / "demo.yaml") as recipe:
        return cast(RunResult, run(recipe, workers=workers, out=out, command=command))


@verb
def distill(
    data: str | Path | Settings,
    *,
    teacher: str | Path | Settings = "auto",
    student: str | Path | Settings = "auto",
    teacher_weights: str | Path | None = None,
    student_weights: str | Path | None = None,
    student_size: int | None = None,
    teacher_epochs: int | None = None,
    alpha: float | None = None,
    temperature: float | None = None,
    loss: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    select: Literal["last", "best", "balanced"] | None = None,
    balance: Literal["none", "sqrt", "full", "logit-adjust"] | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    labels: int | None = None,
    unlabelled: str | Path | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    allow_empty: bool | None = None,
    fit: Literal["crop", "letterbox", "stretch"] | None = None,
    views: int | None = None,
    augment: str | Sequence[Any] | None = None,
    mix: Literal["mixup", "cutmix"] | None = None,
    mix_alpha: float | None = None,
    objective: Settings | None = None,
    train: Settings | None = None,
    export: Settings | None = None,
    input: Literal["raw", "prepared"] | None = None,
    comparisons: Settings | None = None,
    name: str | None = None,
    title: str | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    max_bytes: str | int | None = None,
    max_latency: str | float | None = None,
    reject: str | None = None,
    target: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> RunResult:
    """Train a small student with a large teacher, beside a control without one, and export, measure and report it.

    data: a path, 'digits', or settings. teacher, student: a name, folder, ONNX file, settings, "auto". teacher_weights,
    student_weights: a file, "package:NAME". workers, ray, gpus: docs/scaling.md. reject, target: docs/export.md. In
    docs/recipes.md: labels, seeds, seed, teacher_epochs, student_size, unlabelled, alpha, temperature, loss, epochs,
    batch_size, lr, select, balance, limit, group, test_from, allow_empty, fit, views, augment, mix, mix_alpha, input,
    objective, train, export, comparisons, name, title, min_accuracy, max_drop, max_bytes, max_latency.
    """
    settings = settings_of("distill", locals())
    settings.setdefault("name", f"distill-{last_name(settings['data'].get('path', ''))}")
    return cast(RunResult, run(settings, workers=workers, ray=ray, gpus=gpus, out=out, command=command))


@verb
@one_process
def compare(
    recipe: str | Path | Settings,
    overrides: Sequence[str] = (),
    *,
    allow_code: Sequence[str | Path] = (),
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> CompareResult:
    """Compare methods, students and seeds at an equal budget, as a recipe defines them (docs/comparing.md).

    recipe, overrides, allow_code, workers, ray, gpus, out, command: as in `run`.
    """
    settings = recipe if isinstance(recipe, Mapping) else config.read_yaml(Path(recipe))
    built = config.build(CompareConfig, config.override(settings, overrides))
    own_code.check(own_code.named_in(built.to_json()))
    folder = new_folder(built.name, "compare", built, out)
    with opened(workers=workers, ray=ray, gpus=gpus) as scheduler:
        return CompareResult(compare_stage(built, folder, command=command, scheduler=scheduler), folder)
