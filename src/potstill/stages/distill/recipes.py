"""The trainings of a run: its recipes by name, their images and teacher, and the replay in another process."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from potstill.config import build
from potstill.errors import ConfigError
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.distill.chain import LinkTraining, prepare_with_chain
from potstill.stages.recipe import Recipe
from potstill.stages.side_by_side import SideBySide
from potstill.stages.teacher import input_size
from potstill.stages.teacher.prepare import teacher_size
from potstill.stages.teacher.prepared import TeacherSource


def recipes_of(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipes of the run by name: "" is its own, the others are its comparisons."""
    return {"": recipe, **{name: with_overrides(recipe, name) for name in recipe.comparisons}}


def replay(settings: str, folder: Path, side: SideBySide) -> None:
    """Carry out what `side` wants of the trainings of a run whose teacher is prepared."""
    _, stores = json.loads(settings)
    recipe, data, teacher = _prepared(settings, folder)
    for name, each in recipes_of(recipe).items():
        train.experiment(each, data, teacher, inside(name, folder), Path(stores), side)


@functools.lru_cache(maxsize=1)
def _prepared(settings: str, folder: Path) -> tuple[Recipe, Data, TeacherSource]:
    recipe = build(Recipe, json.loads(settings)[0])
    data = data_of(recipe)
    return recipe, data, prepare_with_chain(recipe.teacher, links_of(recipe), data, folder)


def links_of(recipe: Recipe) -> LinkTraining:
    """Return how the links between teacher and student are trained."""
    setup = train.setup_of(recipe)
    return LinkTraining(setup, recipe.objective.loss_terms, recipe.seed, recipe.seeds, recipe.data.seed)


def with_overrides(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe of a comparison: the same except for the settings under `comparisons.NAME`."""
    settings = recipe.to_json()
    changes = {key: value for key, value in recipe.comparisons[name].items() if key != "description"}
    for key, value in changes.items():
        *parents, last = key.split(".")
        inner = settings
        for parent in parents:
            inner = inner.setdefault(parent, {})
        if parents[:1] not in ([], ["student"], ["objective"], ["train"]) or key in ("data", "teacher"):
            raise ConfigError(
                f"comparisons.{name}.{key}: a comparison has the same data and teacher. It can change student, "
                "objective, train, augment, mix and views."
            )
        inner[last] = value
    settings["comparisons"] = {}
    return build(Recipe, settings, origin=f"the comparison {name}")


def data_of(recipe: Recipe) -> Data:
    """Return the images of a recipe, decoded for its models.

    With `data.size` only the students decide: a larger teacher gets larger pixels of the same crops.
    """
    sizes = [input_size.of_student(recipe.student)]
    sizes += [input_size.own_size(assistant.model) for assistant in recipe.teacher.assistants]
    teacher = 0 if recipe.data.size else teacher_size(recipe.teacher)
    return dataset.prepare(recipe.data, at_least=max(teacher, *sizes))


def inside(name: str, folder: Path) -> Path:
    """Return the folder of a comparison in that of its run."""
    return folder / "comparisons" / name if name else folder
