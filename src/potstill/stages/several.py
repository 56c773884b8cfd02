"""Several teachers as one, and a teacher that learns beside its student."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from potstill import artifacts
from potstill.errors import ConfigError
from potstill.models.class_map import some
from potstill.models.outputs import Classifier
from potstill.stages.data import Data
from potstill.stages.recipe import Recipe
from potstill.stages.teacher import Taught, one, record_of
from potstill.teachers import EnsembleModel


def ensemble(recipe: Recipe, data: Data, folder: Path) -> Taught:
    """Return several teachers as one. Each must know every class of the data."""
    config = recipe.teacher
    members = tuple(
        one(each, recipe, data, folder / str(number), seed=recipe.seed + number - 1)
        for number, each in enumerate(config.ensemble, 1)
    )
    for each, member in zip(config.ensemble, members, strict=True):
        if member.known is not None:
            lacking = [name for place, name in enumerate(data.manifest.classes) if place not in member.known]
            raise ConfigError(
                f"The teacher {each.model} does not know {some(lacking)}, so its answers cannot be averaged with the "
                "others'. Leave it out of the ensemble."
            )
    weights = tuple(each.weight for each in config.ensemble)
    names = [each.model for each in config.ensemble]
    told = [{"name": name, "weight": weight, "validation_accuracy": m.record.get("validation_accuracy", {}).get("last")}
            for name, weight, m in zip(names, weights, members, strict=True)]  # fmt: skip
    card = members[0].card
    models = [member.model for member in members]
    model = None if None in models else EnsembleModel(models, weights, config.average, card)
    identity = artifacts.fingerprint([[m.identity for m in members], weights, config.average])
    title = f"Brought {len(members)} teachers together: {', '.join(names)}"
    made = Taught(model, card, identity, title, {}, members=members, weights=weights, average=config.average,
                  facts={"members": told})  # fmt: skip
    rows = data.manifest.rows("validation", labelled=True)
    said = made.said(data, rows)
    return made if said is None else dataclasses.replace(made, record=record_of(said, data, rows))


def peer(recipe: Recipe, data: Data) -> Taught:
    """Return a network that starts untrained with every student and learns beside it."""
    config = recipe.teacher

    def make(seed: int) -> Classifier:
        # Another seed than the student's: twins of one architecture would have nothing to tell each other.
        return data.model(config.model, weights=config.weights, options=config.options, seed=seed + 1_000_003)

    card = make(recipe.seed).card
    identity = artifacts.fingerprint(["mutual", card.to_json()])
    return Taught(None, card, identity, f"{config.model} learns beside the student", {}, peer=make)
