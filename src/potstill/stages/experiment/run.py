"""The run of an experiment: its steps, side by side where they do not need each other, their results, the page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.report.experiment import write_experiment
from potstill.scheduling import Scheduler
from potstill.stages.experiment.collect import collected
from potstill.stages.experiment.expand import Part, independent, parts_of
from potstill.stages.experiment.settings import ExperimentConfig
from potstill.stages.experiment.together import train_together
from potstill.stages.experiment.verdicts import judged
from potstill.stages.experiment.work import carry_out, hand_out, handed_out_whole, settings_of, title
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.words import plural


def run_experiment(
    experiment: ExperimentConfig, folder: Path, *, command: str = "", scheduler: Scheduler | None = None
) -> dict[str, Any]:
    """Run an experiment in `folder`, resuming an interrupted call; return its summary.

    All settings are checked before the first step. `results` has what was measured, by name; the page is
    `experiment.md`, with its plots beside it. scheduler: carries out the trainings of all steps that do not need each
    other, at once; by default this process, one after another.
    """
    parts = parts_of(experiment, folder)
    for part in parts:
        settings_of(part)

    def work(journal: Journal) -> dict[str, Any]:
        done = []
        for steps in independent(experiment):
            done += _steps(steps, [part for part in parts if part.step in steps], folder, journal, scheduler)
        return _summary(experiment, done)

    return stage("experiment", experiment, folder, work, name=experiment.name, command=command, tables=write_experiment)


def _steps(
    steps: Sequence[str], parts: Sequence[Part], folder: Path, journal: Journal, scheduler: Scheduler | None
) -> list[tuple[Part, dict[str, Any]]]:
    """Return the parts of steps that do not need each other, with their summaries."""
    if scheduler is not None and scheduler.parallel and len(parts) > 1:
        words = f"Training {steps[0] if len(steps) == 1 else plural(len(steps), 'step')} side by side"
        whole = [handed_out_whole(part, parts, scheduler.count) for part in parts]
        works = [functools.partial(hand_out, part, folder, each) for part, each in zip(parts, whole, strict=True)]
        journal.timed(steps[0], words, lambda: train_together(works, scheduler, words))
    return [
        (part, journal.timed(part.step, title(part), functools.partial(carry_out, part, folder, scheduler)))
        for part in parts
    ]


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
