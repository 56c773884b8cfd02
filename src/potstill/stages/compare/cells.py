"""The cells of a comparison: every student taught by every method from every seed, one folder each.

A finished cell is not trained again, an interrupted one goes on from its checkpoint; both come from the same stage as
in a single run. Seeds are the outer loop, so that a comparison that is stopped early has whole rounds to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill import progress
from potstill.objectives.objective import Term
from potstill.stages.compare.settings import CONTROL, CompareConfig
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.train import Teaching, Trained
from potstill.stages.recipe import Recipe

TUNING_SEED = 1000  # tuning starts from a seed that no figure is made from


@dataclass(frozen=True)
class Row:
    """One method for one student: the settings it was given, the trials that chose them, its trained seeds."""

    student: str
    method: str
    recipe: Recipe
    trained: list[Trained]
    trials: list[dict[str, object]]


def terms_for(recipe: Recipe, method: str) -> tuple[Term, ...]:
    """Return what a cell is trained with: the labels alone for the control."""
    return (Term(loss="cross_entropy"),) if method == CONTROL else train.terms_of(recipe)


def check_all(plan: dict[tuple[str, str], list[Recipe]], data: Data, teaching: Teaching) -> None:
    """Raise `ConfigError` for terms that are wrong for these images and networks, before any student is trained."""
    for (_, method), recipes in plan.items():
        for recipe in recipes:
            taught_by = None if method == CONTROL else teaching
            train.check_terms(recipe, data, terms_for(recipe, method), taught_by)


def run_cells(
    config: CompareConfig, plan: dict[tuple[str, str], list[Recipe]], data: Data, teaching: Teaching, folder: Path
) -> list[Row]:
    """Tune where there is something to tune, then train every cell; return them student by student."""
    chosen = {key: _tune(config, key, recipes, data, teaching, folder / "tuning") for key, recipes in plan.items()}
    trained: dict[tuple[str, str], list[Trained]] = {key: [] for key in plan}
    seeds = range(config.seed, config.seed + config.seeds)
    with progress.task("cells", total=len(plan) * len(seeds)) as task:
        for seed in seeds:
            for key, (recipe, _) in chosen.items():
                trained[key].append(_cell(recipe, key, data, teaching, folder / "cells", seed))
                task.advance(text=f"{key[0]}, {key[1]}, seed {seed}")
    teaching.assert_unchanged()
    return [Row(*key, recipe, trained[key], trials) for key, (recipe, trials) in chosen.items()]


def _cell(
    recipe: Recipe, key: tuple[str, str], data: Data, teaching: Teaching, folder: Path, seed: int
) -> Trained:  # fmt: skip
    student, method = key
    taught_by = None if method == CONTROL else teaching
    return train.train_one(
        recipe, train.with_labels_of(recipe, data), terms_for(recipe, method), taught_by,
        folder / student / method, seed,
    )  # fmt: skip


def _tune(
    config: CompareConfig, key: tuple[str, str], recipes: list[Recipe], data: Data, teaching: Teaching, folder: Path
) -> tuple[Recipe, list[dict[str, object]]]:
    """Return the recipe that is best on validation, and what each trial reached there."""
    if len(recipes) == 1:
        return recipes[0], []
    trials, reached = [], []
    for number, (recipe, changes) in enumerate(zip(recipes, config.candidates(key[1]), strict=True)):
        trial = _cell(recipe, key, data, teaching, folder / f"trial-{number}", config.seed + TUNING_SEED)
        accuracy = kept_accuracy(trial, recipe)
        reached.append(accuracy)
        trials.append({"settings": changes, "validation_accuracy": accuracy, "seconds": trial.record["seconds"]})
    return recipes[reached.index(max(reached))], trials


def kept_accuracy(trained: Trained, recipe: Recipe) -> float:
    """Return the validation accuracy of the weights that are kept: the last epoch's, or the best."""
    return float(trained.record["validation_accuracy"][recipe.train.select])
