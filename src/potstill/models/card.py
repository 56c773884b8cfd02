"""The card of a model: everything somebody needs to use it without asking who trained it.

A network that is fed with the wrong normalisation loses a few points silently, so mean, std, size and class
names never travel apart from the weights: they are saved beside them and inside every exported file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Card:
    """What a classifier expects and means.

    model: the spelling `models.zoo.create` understands ("builtin:resnet20-cifar", "resnet50", "torchvision:vgg16").
    classes: names, in the order of the logits.
    channels, size: the input the network sees, size = (height, width) in pixels.
    mean, std: normalisation of the image in 0..1, one value a channel.
    resize, crop: how a photo becomes what the model is given: the short side is resized to `resize` pixels, the
        centre `crop` = (height, width) is cut out, and the model itself resizes that to `size` where they differ
        (a student that was taught on the larger crops of its teacher).
    compressed: what was done to the network that `model` names: {"pruned": {...}, "quantized": {...}}. Its layers have
        the widths and the quantizers that the weights beside the card tell.
    """

    model: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    options: dict[str, Any] = field(default_factory=dict)
    source: str = "random initialisation"
    licence: str = "unknown"
    weights_sha256: str = ""
    compressed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std) == self.channels, "mean and std need one value a channel"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Card:
        """Build a card from what `to_json` returned."""
        listed = {name: tuple(data[name]) for name in ("classes", "size", "crop", "mean", "std")}
        return cls(**{**data, **listed})

    def replace(self, **changes: Any) -> Card:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)
