"""The error for weights that do not fit a network: which tensors do not match, and which network they would fit."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.models.blocks import of_blocks
from potstill.models.card import Card
from potstill.models.outputs import bare
from potstill.models.registry import FAMILIES, blueprint
from potstill.models.truncated import AT
from potstill.models.weights import Fit, State, fit
from potstill.words import argument, plural

TRIED = 10
"""The number of architectures with a similar name tried in each family; building one on the meta device is fast."""

STATISTICS = ("running_mean", "running_var")
"""The end of the names of what BatchNorm measures, which is no parameter."""

ALIKE = 0.2
"""Fraction of a file's tensors that must match an architecture for it to be suggested as the nearest."""


def weight_error(fits: Fit, file: Path, card: Card, state: State, network: nn.Module) -> ModelError:
    """Return the error for weights that do not fit a network, the model of `card`."""
    if fits.head and fits.holds(but=fits.head):
        return ModelError(_other_head(fits, file, card))
    if fits.missing and fits.holds(but={name for name in fits.missing if name.endswith(STATISTICS)}):
        return ModelError(_without_statistics(fits, file, card))
    text = (
        f"{file} does not hold the weights of '{card.typed}': {_counts(fits, state)}. {_advice(card, state, network)}"
    )
    some = fit(of_blocks(state, network.state_dict()), network, len(card.classes))
    if some.holds(but=some.head):
        text += f" Or start with some of its blocks, with these weights: {argument(f'blocks:{file}')}"
    return ModelError(text)


def _other_head(fits: Fit, file: Path, card: Card) -> str:
    return (
        f"The weights in {file} were trained for {fits.file_classes} classes, but {len(card.classes)} are required "
        f"({', '.join(card.classes[:3])}{', ...' if len(card.classes) > 3 else ''}). To keep all layers but the head "
        f"and train a new head, use `{finetuning(card.typed, file)}`."
    )


def finetuning(model: str, file: Path) -> str:
    """Return the command that trains a new head on weights, with the published input where they have no card."""
    command = f"potstill finetune DATA --model {argument(model)} --weights {argument(file)}"
    if file.with_name("card.json").is_file():
        return command
    _, card = blueprint(model.partition(AT)[0], ("0", "1"))
    mean, std = (",".join(f"{value:g}" for value in values) for values in (card.mean, card.std))
    return f"{command} --mean {mean} --std {std} --size {max(card.crop)}"


def _without_statistics(fits: Fit, file: Path, card: Card) -> str:
    return (
        f"{file} has the weights of '{card.typed}' without the means and variances of BatchNorm (first "
        f"'{fits.missing[0]}'), without which the network cannot compute. Save network.state_dict(), which has "
        "them, in place of the parameters alone."
    )


def _counts(fits: Fit, state: State) -> str:
    kinds = {
        "missing": fits.missing,
        "unexpected": fits.unexpected,
        "of another shape": (*fits.reshaped, *fits.head),
    }
    mismatches = [f"{len(names)} {kind} (first '{names[0]}')" for kind, names in kinds.items() if names]
    return ", ".join([f"{plural(fits.matching, 'tensor')} matching", *mismatches])


def _advice(card: Card, state: State, network: nn.Module) -> str:
    spelling, fits = nearest(card, state)
    own = network.state_dict()
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if spelling == card.model and reshaped and fits is not None and not fits.missing and not fits.unexpected:
        there, here = (_shape(tensors[reshaped[0]]) for tensors in (state, own))
        return (
            f"All names match, but '{reshaped[0]}' is {there} there and {here} here: it was created with other options "
            "(a width, a number of channels); set them."
        )
    if fits is None or fits.matching < ALIKE * len(state):
        return "No architecture with a similar name fits it; `potstill models '*' --most 2000` lists all."
    if fits.holds(but=fits.head):
        return f"It fits '{spelling}': use that name instead."
    return f"The nearest architecture is '{spelling}', in which {fits.matching} of {len(state)} tensors match."


def _shape(tensor: Tensor) -> str:
    return "x".join(str(length) for length in tensor.shape)


def nearest(card: Card, state: State) -> tuple[str, Fit | None]:
    """Return the architecture with a similar name that fits a state dict best, and its fit; the named one of equals."""
    best: tuple[str, Fit | None] = (card.model, None)
    for spelling in sorted(_similar(card.model), key=lambda similar: similar != card.model):
        fits = _try(spelling, card, state)
        if best[1] is None or _score(fits) > _score(best[1]):
            best = (spelling, fits)
        if fits.holds(but=fits.head):
            break
    return best


def _score(fits: Fit) -> float:
    """Return the fraction of all tensors, of file and network, that match."""
    wrong = len(fits.missing) + len(fits.unexpected) + len(fits.reshaped)
    return fits.matching / (fits.matching + wrong)


def _similar(model: str) -> list[str]:
    """Return the model names that begin with the same letters: the most similar of each family, nearest first."""
    name = _plain(model)
    letters = re.split("[^a-z]", name, maxsplit=1)[0]

    def likeness(spelling: str) -> float:
        return difflib.SequenceMatcher(None, name, _plain(spelling)).ratio()

    nearest: list[str] = []
    for family in FAMILIES.values():
        spellings = [family.spell(known) for known in family.names() if _plain(known).startswith(letters)]
        nearest += sorted(spellings, key=likeness, reverse=True)[:TRIED]
    return sorted(nearest, key=likeness, reverse=True)


def _plain(spelling: str) -> str:
    """Return a name without prefix and punctuation: libraries differ in mobilenetv2 and mobilenet_v2."""
    return re.sub("[^a-z0-9]", "", spelling.rpartition(":")[2])


def _try(spelling: str, card: Card, state: State) -> Fit:
    network, _ = blueprint(spelling, card.classes)
    return fit(state, bare(network), len(card.classes))
