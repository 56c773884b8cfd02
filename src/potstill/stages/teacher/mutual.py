"""A teacher that learns beside its student (deep mutual learning)."""

from __future__ import annotations

from potstill import artifacts
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.stages.recipe import Recipe
from potstill.stages.teacher.prepared import Taught


def peer(recipe: Recipe, data: Data) -> Taught:
    """Return a network that starts untrained with every student and learns beside it."""
    config = recipe.teacher

    def make(seed: int) -> Classifier:
        # Another seed than the student's: twins of one architecture would have nothing to tell each other.
        return data.model(config.model, weights=config.weights, options=config.options, seed=seed + 1_000_003)

    card = make(recipe.seed).card
    identity = artifacts.fingerprint(["mutual", card.to_json()])
    return Taught(None, card, identity, f"{config.model} learns beside the student", {}, peer=make)
