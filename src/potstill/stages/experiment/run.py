"""The run of an experiment: its steps one after another, their results, the page."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from potstill.config import Config
from potstill.errors import UserError
from potstill.report.experiment import write_experiment
from potstill.scheduling import Scheduler
from potstill.stages.compare import CompareConfig, compare
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.distill.run import run_recipe
from potstill.stages.experiment.collect import collected
from potstill.stages.experiment.expand import Part, build, parts_of
from potstill.stages.experiment.settings import ExperimentConfig
from potstill.stages.experiment.together import train_together
from potstill.stages.experiment.train import TrainStepConfig, train_step
from potstill.stages.experiment.verdicts import judged
from potstill.stages.finetune import FinetuneConfig, finetune
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import Journal
from potstill.stages.selftrain import SelftrainConfig, selftrain
from potstill.stages.stage import stage

STAGES: dict[str, tuple[type[Config], Callable[..., dict[str, Any]]]] = {
    "train": (TrainStepConfig, train_step),
    "distill": (Recipe, run_recipe),
    "compare": (CompareConfig, compare),
    "finetune": (FinetuneConfig, finetune),
    "selftrain": (SelftrainConfig, selftrain),
    "prune": (PruneConfig, prune),
    "quantize": (QuantizeConfig, quantize),
}


SIDE_BY_SIDE = ("train", "distill", "compare", "selftrain")
"""Stages with several independent trainings."""


def run_experiment(
    experiment: ExperimentConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Run an experiment in `folder`, resuming an interrupted call; return its summary.

    All settings are checked before the first step. `results` has what was measured, by name; the page is
    `experiment.md`, with its plots beside it. scheduler: carries out the trainings of a step, those of all its parts
    at once; by default this process.
    """
    parts = parts_of(experiment, folder)
    settings = [build(part, STAGES[part.stage][0]) for part in parts]

    def work(journal: Journal) -> dict[str, Any]:
        done = []
        for step, group in itertools.groupby(zip(parts, settings, strict=True), lambda one: one[0].step):
            done += _step(step, list(group), folder, journal, scheduler)
        return _summary(experiment, done)

    return stage("experiment", experiment, folder, work, name=experiment.name, command=command, tables=write_experiment)


def _step(
    step: str,
    group: Sequence[tuple[Part, Config]],
    folder: Path,
    journal: Journal,
    scheduler: Scheduler | None,
) -> list[tuple[Part, dict[str, Any]]]:
    """Return the parts of a step with their summaries; other processes train those of all parts at once."""
    works = [functools.partial(_stage, part, config, folder) for part, config in group]
    if scheduler is not None and scheduler.parallel and len(group) > 1 and group[0][0].stage in SIDE_BY_SIDE:
        title = f"Training {step} side by side"
        journal.timed(step, title, lambda: train_together(works, scheduler, title))
    return [
        (part, journal.timed(step, _title(part), functools.partial(work, scheduler)))
        for (part, _), work in zip(group, works, strict=True)
    ]


def _stage(part: Part, config: Config, folder: Path, scheduler: Scheduler | None) -> dict[str, Any]:
    work = STAGES[part.stage][1]
    if part.stage in SIDE_BY_SIDE:
        work = functools.partial(work, scheduler=scheduler)
    try:
        return work(config, folder / part.folder)
    except UserError as error:
        raise type(error)(*(f"step {_title(part)}: {problem}" for problem in error.problems)) from None


def _title(part: Part) -> str:
    return " ".join([part.step, *(f"{name}={text}" for name, text in part.each.items())])


def _summary(experiment: ExperimentConfig, done: list[tuple[Part, dict[str, Any]]]) -> dict[str, Any]:
    results = collected(done)
    models = {
        name: {"test_accuracy": result["accuracy"], "accuracy": result["mean"], "interval": result["interval"]}
        | {key: int(result["measures"][key][0]) for key in ("parameters", "macs") if key in result["measures"]}
        for name, result in results.items()
    }
    first, last = done[0][1], done[-1][1]
    measured = {"date": last["date"], "machine": first["machine"], "versions": first["versions"]}  # not when rendered
    return {**measured, "data": first["data"], "models": models, "results": results, **judged(experiment, results)}
