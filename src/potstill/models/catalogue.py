"""The list of `potstill models [PATTERN]`: names, costs and published accuracies, without allocating the networks."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from potstill.models import truncated
from potstill.models.card import Card
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier, bare
from potstill.models.registry import FAMILIES, blueprint, family_of
from potstill.models.truncated import AT

FILE_BYTES, LAYER_BYTES, CHANNEL_BYTES = 5000, 300, 12
"""Overhead of an 8-bit file: preprocessing and metadata; for each layer; for each of its output channels (two scales
and a bias). On three files of 87 to 291 kB the estimate is within 2 %."""


@dataclass(frozen=True)
class Row:
    """A model of the catalogue.

    parameters: with a head for 1,000 classes, 10 for built-in and truncated models. bytes: of its 8-bit file, about.
    macs: multiply-accumulates of one image of its own size, None if they cannot be counted without weights. size:
    (height, width) in pixels. accuracy: published top-1 accuracy on ImageNet in percent of torchvision's default
    weights; None if there is none.
    """

    name: str
    where: str
    parameters: int
    bytes: int
    macs: int | None
    size: tuple[int, int]
    accuracy: float | None = None


def matching(pattern: str = "*") -> list[str]:
    """Return the model names that match a shell pattern; a word without `*` or `?` matches anywhere in the name.

    "NAME@*" are the truncations of a model at the ends of its blocks (`truncated.stages`).
    """
    if AT in pattern:
        return _truncations(*pattern.rsplit(AT, 1))
    wildcard = pattern if _is_wildcard(pattern) else f"*{pattern}*"
    spellings = [family.spell(name) for family in FAMILIES.values() for name in family.names()]
    return [s for s in spellings if fnmatch.fnmatchcase(s, wildcard) or fnmatch.fnmatchcase(s.split(":")[-1], wildcard)]


def _is_wildcard(pattern: str) -> bool:
    return bool(set(pattern) & set("*?["))


def _truncations(name: str, place: str) -> list[str]:
    family_of(name)  # raises for an unknown name
    if not _is_wildcard(place):
        return [f"{name}{AT}{place}"]
    with torch.device("meta"):
        taps = truncated.stages(Classifier(*blueprint(name, ("0", "1"))))
    return [f"{name}{AT}{tap.name}" for tap in taps if fnmatch.fnmatchcase(tap.name, place)]


def list_models(pattern: str = "*") -> Iterator[Row]:
    """Yield a row for each matching model, built-in ones first; each is built lazily on the meta device.

    A row takes some tenths of a second: take only as many as are shown.
    """
    for spelling in matching(pattern):
        prefix, colon, name = spelling.partition(":")
        where = prefix if colon else "timm"
        count = 10 if where == "builtin" or AT in name else 1000
        network, card = blueprint(spelling, tuple(str(number) for number in range(count)))
        macs, accuracy = None, None
        if where == "torchvision" and AT not in name:
            macs, accuracy = _published(name)
        yield _row(spelling, where, bare(network), card, macs, accuracy)


def _row(spelling: str, where: str, network: nn.Module, card: Card, macs: int | None, accuracy: float | None) -> Row:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    overhead = sum(LAYER_BYTES + CHANNEL_BYTES * len(layer.weight) for layer in layers)
    return Row(
        spelling,
        where,
        parameters,
        FILE_BYTES + parameters + overhead,
        macs or _macs(network, card),
        card.size,
        accuracy,
    )


def _macs(network: nn.Module, card: Card) -> int | None:
    device = next(network.parameters()).device
    try:
        return cost(network, torch.zeros(1, card.channels, *card.size, device=device)).total_macs
    except NotImplementedError:  # an operator without shapes on the meta device
        return None


def _published(name: str) -> tuple[int, float]:
    """Return multiply-accumulates (attention included) and accuracy of torchvision's default weights."""
    from torchvision.models import get_model_weights

    meta = cast(Any, get_model_weights(name)).DEFAULT.meta
    return round(1e9 * meta["_ops"]), meta["_metrics"]["ImageNet-1K"]["acc@1"]
