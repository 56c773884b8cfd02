"""A teacher of soft labels that `potstill label` wrote earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from potstill import artifacts
from potstill.data.loader import Loader
from potstill.errors import ConfigError, RunError
from potstill.models.card import Card
from potstill.stages.dataset import Data
from potstill.stages.recipe import OneTeacher, Recipe
from potstill.stages.teacher.prepared import Taught
from potstill.stages.teacher.replay import pixels_fingerprint, probe
from potstill.teachers.base import Teacher
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher

FACTS, PROBE, ANSWERS = "labels.json", "probe.safetensors", "answers"


SAME = 2 / 255  # how far a pixel of a view may be off between two machines


def taught(config: OneTeacher, data: Data) -> Taught:
    """Return the teacher whose soft labels lie in the folder `config.model`."""
    folder = Path(config.model)
    facts = artifacts.read_json(folder / FACTS)
    known = None if facts["known"] is None else tuple(facts["known"])
    identity = artifacts.fingerprint(facts["source"])
    record = {"validation_accuracy": {"last": facts["accuracy"]}} if facts["accuracy"] is not None else {}

    def teacher(recipe: Recipe, data: Data) -> Teacher:
        return opened(folder, facts, recipe, data)

    title = f"Took the soft labels of {facts['teacher']} from {folder}"
    return Taught(None, Card.from_json(facts["card"]), identity, title, record, labels=teacher, views=facts["views"],
                  known=known)  # fmt: skip


def opened(folder: Path, facts: dict[str, Any], recipe: Recipe, data: Data) -> Teacher:
    """Return the teacher, once the recipe's views were shown to be those that were labelled.

    Raises `ConfigError` for a recipe of other images, splits or views, and `RunError` where the pixels differ.
    """
    loader = data.loader(augment=recipe.augment, seed=recipe.seed)
    problems = []
    if pixels_fingerprint(data) != facts["source"]["images"]:
        problems.append(
            f"{folder} holds soft labels of other images, of another split of them or of other classes. Give the same "
            "data settings as they were made with, or label these images."
        )
    if loader.view.fingerprint != facts["source"]["augmentation"]:
        problems.append(
            f"{folder} holds soft labels of views made with augment={facts['augment']} and seed={facts['seed']}, and "
            f"the recipe has augment={recipe.augment} and seed={recipe.seed} (or images of another size). Make them "
            "equal."
        )
    if recipe.view_count > facts["views"]:
        problems.append(
            f"{folder} holds soft labels of {facts['views']} views of each image, and the recipe asks for "
            f"{recipe.view_count}. Set views: {facts['views']}, or label more."
        )
    if problems:
        raise ConfigError(*problems)
    store = Store(folder / ANSWERS, data.manifest.rows("train"), facts["views"], facts["source"])
    if not store.complete:
        raise RunError(f"{folder} is not finished. Run the same `potstill label` command again; it goes on.")
    _check_probe(store, loader, folder)
    return StoredTeacher(store, len(data.manifest.classes))


def _check_probe(store: Store, loader: Loader, folder: Path) -> None:
    was, now = load_file(folder / PROBE), probe(store, loader)
    image = now.image.half().cpu().numpy()
    fits = image.shape == was["image"].shape and np.array_equal(now.index.cpu().numpy(), was["index"])
    if not fits or np.abs(image.astype(np.float32) - was["image"].astype(np.float32)).max() > SAME:
        raise RunError(
            f"The views of these images are not those that were labelled in {folder}: the same numbers give other "
            "pixels here, perhaps because another version of potstill made them. Label the images again."
        )
