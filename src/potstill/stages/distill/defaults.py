"""Teacher and student of a recipe that names none, chosen by the images (`model: auto`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from potstill.errors import ConfigError
from potstill.models import hub, packages
from potstill.stages import dataset
from potstill.stages.recipe import AUTO, DataConfig, Recipe

PHOTO = 64
"""Median of the short sides, in pixels, from which images are photos."""
LOOKED_AT = 64  # images

SIZE = 128  # input size in pixels of students of photos
CUT = "blocks.3"  # where EfficientNet-Lite0 ends as a student: 0.25 million parameters
RATE = 0.0005  # learning rate of a student with pretrained weights
SMALL_TEACHER, SMALL_STUDENT = "builtin:resnet20-cifar", "builtin:small-cnn"


class Chosen(NamedTuple):
    """A recipe that names teacher and student, and a sentence that says why; "" if it already did."""

    recipe: Recipe
    sentence: str = ""


def chosen(recipe: Recipe) -> Chosen:
    """Return a recipe with the teacher and the student that are "auto" named.

    Photos get the largest network with pretrained weights at hand as teacher, with a probe as its head, and a truncated
    small one as student; small images a residual teacher that is trained on them, and a small CNN. Raises `ConfigError`
    for weights or options of a model that is not named.
    """
    auto = [part for part in ("teacher", "student") if getattr(recipe, part).model == AUTO]
    if recipe.teacher.ensemble:
        auto = [part for part in auto if part != "teacher"]
    if not auto:
        return Chosen(recipe)
    _check(recipe, auto)
    side = _side(recipe.data)
    photos, mutual = side >= PHOTO, recipe.teacher.mutual
    models = {"teacher": _teacher(photos and not mutual), "student": _student(photos)}
    settings = recipe.model_dump(exclude_unset=True)
    for part in auto:
        settings[part] = {**settings.get(part, {}), **models[part]}
    if photos and recipe.data.size is None:
        settings["data"] = {**settings["data"], "size": SIZE}
    if "weights" in settings.get("student", {}) and "student" in auto:
        settings["train"] = {"lr": RATE, **settings.get("train", {})}
    return Chosen(Recipe(**settings), _sentence(auto, models, side, photos))


def _check(recipe: Recipe, auto: list[str]) -> None:
    problems = [
        f"{part}.{key} is given without {part}.model, the network that it belongs to. Name it: --{part} NAME, or "
        f"{part}.model in a recipe."
        for part in auto
        for key in ("weights", "options")
        if getattr(getattr(recipe, part), key)
    ]
    if problems:
        raise ConfigError(*problems)


def _side(config: DataConfig) -> int:
    """Return the median of the short sides of up to `LOOKED_AT` evenly spaced images, in pixels."""
    manifest = dataset.unsplit(config)
    rows = np.linspace(0, len(manifest) - 1, min(len(manifest), LOOKED_AT)).astype(int)
    return int(np.median([min(manifest.image(int(row)).shape[:2]) for row in rows]))


def _teacher(pretrained: bool) -> dict[str, Any]:
    if not pretrained:
        return {"model": SMALL_TEACHER}
    best = packages.available()[-1:] or ([packages.PACKAGES[-1]] if hub.reachable(hub.TIMM) else [])
    if not best:
        return {"model": SMALL_TEACHER}
    weights = best[0].weights if best[0].path else packages.HUB
    return {"model": best[0].model, "weights": weights, "new_head": True}


def _student(photos: bool) -> dict[str, Any]:
    smallest = packages.PACKAGES[0]
    if not photos or smallest.path is None:
        return {"model": SMALL_STUDENT}
    return {"model": f"{smallest.model}@{CUT}", "weights": smallest.weights, "size": SIZE}


def _sentence(auto: list[str], models: dict[str, dict[str, Any]], side: int, photos: bool) -> str:
    parts = [f"{part} {models[part]['model']} ({_origin(models[part])})" for part in auto]
    kind = "photos" if photos else "small images"
    install = "" if packages.available() or not photos else f" `{packages.INSTALL}` adds pretrained networks."
    flags = " and ".join(f"--{part}" for part in auto)
    return f"Chosen for {kind} (median short side {side} pixels): {' and '.join(parts)}. {flags} change this.{install}"


def _origin(model: dict[str, Any]) -> str:
    if "new_head" in model:
        return f"weights {model['weights']}, its head fitted to these classes"
    return f"weights {model['weights']}" if "weights" in model else "trained here"
