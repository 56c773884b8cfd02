"""The card of a model: all metadata that is needed to use it.

A wrong normalisation silently costs a few points of accuracy, so mean, std, size and class names are always kept with
the weights: next to them in a model folder, and inside every exported file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Fit = Literal["crop", "letterbox", "stretch"]
"""How a photo of another shape becomes the input: cut, whole on a border, or distorted."""


@dataclass(frozen=True)
class Card:
    """The input, the classes and the origin of a classifier.

    model: the name for `models.zoo.create` ("builtin:resnet20-cifar", "resnet50", "torchvision:vgg16").
    classes: names, in the order of the logits.
    channels, size: the input of the network, size = (height, width) in pixels.
    mean, std: normalisation of the image in 0..1, one value per channel.
    fit, resize, crop: preprocessing of photos to `crop` = (height, width). fit "crop": the largest centred box with the
        shape of a window of `resize` pixels a side (larger where `crop` is) is scaled to that window, and its centre
        `crop` is cut out. "letterbox": the whole image is scaled into `crop`, on a grey border. "stretch": the whole
        image is scaled to `crop`. Then the model resizes the crop to `size` if they differ (a student that was trained
        on the larger crops of its teacher).
    interpolation: always bilinear, with antialias: how potstill resizes.
    compressed: the compression applied to the network `model`: {"pruned": {...}, "quantized": {...}}. The widths and
        quantizers of its layers are read from the weights stored with the card.
    reject: {"precision", "threshold", "validation"} of a model that answers "unsure" where its largest probability is
        below the threshold (`evaluation.rejection`); empty for others.
    device: {"macs", "flash", "ram"} of an exported file, for one image, in bytes (`exporters.footprint`).
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
    fit: Fit = "crop"
    options: dict[str, Any] = field(default_factory=dict)
    source: str = "random initialisation"
    licence: str = "unknown"
    weights_sha256: str = ""
    compressed: dict[str, Any] = field(default_factory=dict)
    reject: dict[str, Any] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std) == self.channels, "mean and std need one value per channel"

    @property
    def typed(self) -> str:
        """The name of the network as a user types it: NAME@LAYER where `model` is the "cut:NAME" of a truncated one."""
        kind, colon, name = self.model.partition(":")
        if kind == "cut" and "tap" in self.options:
            return f"{name}@{self.options['tap']['name']}"
        return name if colon and kind in ("cut", "reused") else self.model

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def replace(self, **changes: Any) -> Card:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)
