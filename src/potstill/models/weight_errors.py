"""What to say where weights do not fit a network: how many names, which first, and which network they would fit."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from potstill.errors import ModelError
from potstill.models.card import Card
from potstill.models.outputs import bare
from potstill.models.registry import FAMILIES, blueprint
from potstill.models.weights import Fit, State, fit

TRIED = 10
"""How many architectures of a similar name are tried in each family; building one without memory is quick."""

ALIKE = 0.2
"""Share of a file's tensors that must have their place in an architecture that is named as the nearest."""


def weight_error(fits: Fit, file: Path, card: Card, state: State) -> ModelError:
    """Return the error for weights that do not fit the model of `card`."""
    if fits.head and fits.holds(but=fits.head):
        return ModelError(_other_head(fits, file, card))
    text = f"{file} does not hold the weights of '{card.model}': {_counts(fits, state)}. {_advice(card, state)}"
    return ModelError(text)


def _other_head(fits: Fit, file: Path, card: Card) -> str:
    return (
        f"The weights in {file} were trained for {fits.file_classes} classes, but {len(card.classes)} are asked for "
        f"({', '.join(card.classes[:3])}{', ...' if len(card.classes) > 3 else ''}). To keep everything below the "
        f"head and train a new one, use `potstill finetune DATA --model {card.model} --weights {file}`."
    )


def _counts(fits: Fit, state: State) -> str:
    kinds = {
        "missing": fits.missing,
        "unexpected": fits.unexpected,
        "of another shape": (*fits.reshaped, *fits.head),
    }
    total = f"{fits.matching} tensors have their place"
    said = [f"{len(names)} are {kind} (first '{names[0]}')" for kind, names in kinds.items() if names]
    return ", ".join([total, *said])


def _advice(card: Card, state: State) -> str:
    spelling, fits = nearest(card, state)
    if spelling == card.model and fits is not None and not fits.missing and not fits.unexpected:
        return "All names agree: it was made with other options (a width, a number of channels); give them."
    if fits is None or fits.matching < ALIKE * len(state):
        return "No architecture of a similar name fits it either; `potstill models` lists all names."
    if fits.holds(but=fits.head):
        return f"It fits '{spelling}': use that name instead."
    return f"The nearest architecture is '{spelling}', where {fits.matching} of {len(state)} tensors have their place."


def nearest(card: Card, state: State) -> tuple[str, Fit | None]:
    """Return the architecture of a similar name that fits a state dict best, and how it fits."""
    best: tuple[str, Fit | None] = (card.model, None)
    for spelling in _similar(card.model):
        fits = _try(spelling, card, state)
        if best[1] is None or _score(fits) > _score(best[1]):
            best = (spelling, fits)
        if fits.holds(but=fits.head):
            break
    return best


def _score(fits: Fit) -> float:
    """Return which share of all tensors, the file's and the network's, have their place."""
    wrong = len(fits.missing) + len(fits.unexpected) + len(fits.reshaped)
    return fits.matching / (fits.matching + wrong)


def _similar(model: str) -> list[str]:
    """Return the spellings whose names begin with the same letters: the nearest of each family, nearest first."""
    name = _plain(model)
    letters = re.match("[a-z]*", name).group()

    def likeness(spelling: str) -> float:
        return difflib.SequenceMatcher(None, name, _plain(spelling)).ratio()

    found: list[str] = []
    for family in FAMILIES.values():
        spellings = [family.spell(known) for known in family.names() if _plain(known).startswith(letters)]
        found += sorted(spellings, key=likeness, reverse=True)[:TRIED]
    return sorted(found, key=likeness, reverse=True)


def _plain(spelling: str) -> str:
    """Return a name without its family and punctuation: libraries disagree on mobilenetv2 and mobilenet_v2."""
    return re.sub("[^a-z0-9]", "", spelling.rpartition(":")[2])


def _try(spelling: str, card: Card, state: State) -> Fit:
    network, _ = blueprint(spelling, card.classes)
    return fit(state, bare(network), len(card.classes))
