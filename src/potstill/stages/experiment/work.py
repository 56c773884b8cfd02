"""What a part of an experiment does: its stage, which hands out its trainings or is handed out whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.config import Config
from potstill.errors import UserError
from potstill.scheduling import Scheduler, carried_out
from potstill.stages.compare import CompareConfig, compare
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.distill.run import run_recipe
from potstill.stages.experiment.expand import Part, build
from potstill.stages.experiment.train import TrainStepConfig, train_step
from potstill.stages.finetune import FinetuneConfig, finetune
from potstill.stages.recipe import Recipe
from potstill.stages.selftrain import SelftrainConfig, selftrain

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
"""Stages with several independent trainings, which can be handed out one by one."""


def settings_of(part: Part) -> Config:
    """Return the settings of a part, checked."""
    return build(part, STAGES[part.stage][0])


def title(part: Part) -> str:
    """Return its step and values: "frozen seed=1"."""
    return " ".join([part.step, *(f"{name}={text}" for name, text in part.each.items())])


def carry_out(part: Part, folder: Path, scheduler: Scheduler | None = None) -> dict[str, Any]:
    """Return the summary of a part, which is read if it is finished. folder: of the experiment."""
    work = STAGES[part.stage][1]
    if part.stage in SIDE_BY_SIDE:
        work = functools.partial(work, scheduler=scheduler)
    try:
        return work(settings_of(part), folder / part.folder)
    except UserError as error:
        raise type(error)(*(f"step {title(part)}: {problem}" for problem in error.problems)) from None


def handed_out_whole(part: Part, parts: Sequence[Part], count: int) -> bool:
    """Return whether a part, of several that do not need each other, is handed out whole to one of `count` workers.

    The trainings of a self-training follow one another: where all workers have one of their own, none has to wait.
    """
    of_its_kind = sum(other.stage == part.stage for other in parts)
    return part.stage not in SIDE_BY_SIDE or (part.stage == "selftrain" and of_its_kind >= count)


def hand_out(part: Part, folder: Path, whole: bool, scheduler: Scheduler) -> None:
    """Give `scheduler` the trainings of a part, or the whole part, unless it is finished."""
    if not whole:
        carry_out(part, folder, scheduler)
    elif artifacts.finished(folder / part.folder) is None:
        carried_out(scheduler, [Whole(part, folder)], title(part))


@dataclass(frozen=True)
class Whole:
    """A cell: a part of the experiment in `folder`."""

    part: Part
    folder: Path

    @property
    def place(self) -> Path:
        """The folder of the part."""
        return (self.folder / self.part.folder).absolute()

    def carry_out(self) -> None:
        """Run its stage, resuming an interrupted call."""
        carry_out(self.part, self.folder)
