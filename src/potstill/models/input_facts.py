"""Facts about an architecture that are known before its weights are allocated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.errors import ModelError
from potstill.models import packages, zoo
from potstill.models.foreign_names import read_as
from potstill.models.outputs import Classifier, bare
from potstill.models.registry import blueprint
from potstill.words import plural


def own_size(name: str) -> int:
    """Return the default input size of a model, in pixels per side; 0 if it accepts any.

    The built-in networks are built for the size of the images, so they have no default.
    """
    if name.startswith("builtin:"):
        zoo.family_of(name)  # raises for an unknown name
        return 0
    _, card = blueprint(name, ("0", "1"))
    return max(card.crop)


def from_weights(name: str, weights: Path | str, *, classes: Sequence[str] | None = None) -> Classifier:
    """Return a model by name with weights that have no card; classes are numbered if no names are given.

    weights: a file, "package:NAME", "hub" (ImageNet's 1,000 classes) or "auto". Raises `ModelError` if the head of the
    weights has another number of classes than there are names.
    """
    count = class_count(name, weights)
    names = tuple(classes or (str(number) for number in range(count)))
    if len(names) != count:
        raise ModelError(
            f"{weights} has a head for {plural(count, 'class')}, but --classes has {len(names)}. Name all of them."
        )
    return zoo.create(name, classes=names, weights=weights).eval()


def class_count(name: str, weights: Path | str) -> int:
    """Return the number of classes of the head in a file of weights, or of the published ones."""
    source = packages.resolved(name, weights)
    if not isinstance(source, Path):
        return published_classes(name)
    shapes = []
    for count in (2, 3):
        network, _ = blueprint(name, tuple("abc"[:count]))
        shapes.append({key: value.shape for key, value in bare(network).state_dict().items()})
    head = [key for key in shapes[0] if shapes[0][key] != shapes[1][key]]
    state = read_as(bare(network), source, 3)
    if head[-1] not in state:
        raise ModelError(
            f"{weights} does not fit {name}: it has no {head[-1]}. Check the name; `potstill models '*' --most 2000` "
            "lists them."
        )
    return state[head[-1]].shape[0]


def published_classes(name: str) -> int:
    """Return the number of classes of a model's weights on the hub: 1,000 of ImageNet, but for some of timm."""
    family, inner = zoo.family_of(name)
    if family.prefix:
        return 1000
    import timm

    settings: Any = timm.get_pretrained_cfg(inner)
    return settings.num_classes
