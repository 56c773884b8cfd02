"""Repeating the step at which a training diverged, from the folder in which it was kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill import config
from potstill.config import Config, read_yaml
from potstill.errors import RunError
from potstill.stages.compare import CompareConfig, compare
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import QuantizeConfig, quantize
from potstill.stages.distill.run import run_recipe
from potstill.stages.finetune import FinetuneConfig
from potstill.stages.finetune.run import finetune
from potstill.stages.label import LabelConfig, run_label
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import RECORDS
from potstill.stages.selftrain import SelftrainConfig, selftrain
from potstill.training import divergence

STAGES: dict[str, tuple[type[Config], Callable[..., Any]]] = {
    "recipe": (Recipe, run_recipe),
    "compare": (CompareConfig, compare),
    "finetune": (FinetuneConfig, finetune),
    "selftrain": (SelftrainConfig, selftrain),
    "label": (LabelConfig, run_label),
    "prune": (PruneConfig, prune),
    "quantize": (QuantizeConfig, quantize),
}
"""The stages that train, by the name of their record."""


def debug(folder: Path) -> dict[str, Any]:
    """Repeat the step that is kept in or below a folder; return what it gives (docs/faults.md).

    The run is set up as before, with the parts of it that are finished, up to the training that diverged. Raises
    `RunError` if there is no kept step, or the run does not come to it.
    """
    kept = _kept(folder)
    run, record = _run_of(kept)
    settings = read_yaml(record)
    name = "compare" if record.stem == "recipe" and "methods" in settings else record.stem
    kind, stage = STAGES[name]
    try:
        with divergence.repeating(kept.parent):
            stage(config.build(kind, settings, origin=str(record)), run)
    except divergence.Repeated as repeated:
        return repeated.report
    raise RunError(f"{run} did not come to the training of {kept}: it has finished since. There is nothing to repeat.")


def _kept(folder: Path) -> Path:
    found = sorted(file.parent for file in folder.rglob(divergence.FACTS) if file.parent.name == divergence.FOLDER)
    if len(found) == 1:
        return found[0]
    which = f"several: {', '.join(map(str, found))}. Give one of them" if found else "none. Give the run that diverged"
    raise RunError(
        f"A step at which a training diverged is kept in a folder named {divergence.FOLDER}; there is {which}."
    )


def _run_of(kept: Path) -> tuple[Path, Path]:
    """Return the run folder that a kept step belongs to, and the record of its settings."""
    for folder in kept.parents:
        for record in (folder / name for name in RECORDS):
            if record.is_file() and record.stem in STAGES:
                return folder, record
    raise RunError(f"{kept} is in no run folder, so its settings are unknown. Give the run folder where it was kept.")
