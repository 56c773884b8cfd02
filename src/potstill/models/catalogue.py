"""The list of `potstill models [PATTERN]`: names, sizes and published accuracies, without allocating the networks."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from potstill.models.outputs import bare
from potstill.models.registry import FAMILIES, blueprint


@dataclass(frozen=True)
class Row:
    """A model of the catalogue.

    parameters: with a head for 1,000 classes, 10 for built-in models. size: (height, width) in pixels. accuracy:
    published top-1 accuracy on ImageNet in percent of torchvision's default weights; None if there is none.
    """

    name: str
    where: str
    parameters: int
    size: tuple[int, int]
    accuracy: float | None = None


def matching(pattern: str = "*") -> list[str]:
    """Return the model names that match a shell pattern; a word without `*` or `?` matches anywhere in the name."""
    wildcard = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    spellings = [family.spell(name) for family in FAMILIES.values() for name in family.names()]
    return [s for s in spellings if fnmatch.fnmatchcase(s, wildcard) or fnmatch.fnmatchcase(s.split(":")[-1], wildcard)]


def list_models(pattern: str = "*") -> Iterator[Row]:
    """Yield a row for each matching model, built-in ones first; each is built lazily on the meta device.

    A row takes some hundredths of a second: take only as many as are shown.
    """
    for spelling in matching(pattern):
        prefix, _, name = spelling.rpartition(":")
        yield _torchvision_row(name) if prefix == "torchvision" else _row(spelling, prefix)


def _row(spelling: str, prefix: str) -> Row:
    count = 10 if prefix == "builtin" else 1000
    network, card = blueprint(spelling, tuple(str(number) for number in range(count)))
    parameters = sum(parameter.numel() for parameter in bare(network).parameters())
    return Row(spelling, prefix or "timm", parameters, card.size)


def _torchvision_row(name: str) -> Row:
    from torchvision.models import get_model_weights

    weights = cast(Any, get_model_weights(name)).DEFAULT
    side = weights.transforms().crop_size[0]
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return Row(f"torchvision:{name}", "torchvision", weights.meta["num_params"], (side, side), accuracy)
