"""The card of a model: all metadata that is needed to use it.

A wrong normalisation silently costs a few points of accuracy, so mean, std, size and class names are always kept with
the weights: next to them in a model folder, and inside every exported file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from potstill.errors import ModelError


@dataclass(frozen=True)
class Card:
    """The input, the classes and the origin of a classifier.

    model: the name for `models.zoo.create` ("builtin:resnet20-cifar", "resnet50", "torchvision:vgg16").
    classes: names, in the order of the logits.
    channels, size: the input of the network, size = (height, width) in pixels.
    mean, std: normalisation of the image in 0..1, one value per channel.
    resize, crop: preprocessing of photos: the short side is resized to `resize` pixels, then the centre `crop` =
        (height, width) is cropped, and the model resizes the crop to `size` if they differ (a student that was
        trained on the larger crops of its teacher).
    compressed: the compression applied to the network `model`: {"pruned": {...}, "quantized": {...}}. The widths and
        quantizers of its layers are read from the weights stored with the card.
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
        assert len(self.mean) == len(self.std) == self.channels, "mean and std need one value per channel"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, data: object, *, origin: str = "The card") -> Card:
        """Return a card from the result of `to_json`; raise `ModelError` that names every wrong key.

        origin: what holds the card, the beginning of that sentence.
        """
        try:
            return cls(**dict(_Record.model_validate(data)))
        except ValidationError as error:
            found = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()]
            raise ModelError(
                f"{origin} cannot be used: {'; '.join(found[:3])}{', ...' if found[3:] else ''}. It was edited, or "
                "written by another version of potstill."
            ) from None

    @classmethod
    def from_text(cls, text: str, *, origin: str) -> Card:
        """Return a card from the JSON inside a file; raise `ModelError` as `from_json`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{origin} cannot be used: it is not JSON ({error}). Export the model again.") from None
        return cls.from_json(data, origin=origin)

    def replace(self, **changes: Any) -> Card:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


_Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]
_Side = Annotated[int, Field(ge=1, le=16_384)]
_Value = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    """What a card may hold; sizes are bounded, since images of them are made."""

    model_config = ConfigDict(extra="forbid")

    model: str
    classes: tuple[_Name, ...] = Field(min_length=1, max_length=1_000_000)
    channels: int = Field(ge=1, le=1024)
    size: tuple[_Side, _Side]
    mean: tuple[_Value, ...]
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    resize: _Side
    crop: tuple[_Side, _Side]
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    options: dict[str, Any] = {}
    source: str = "random initialisation"
    licence: str = "unknown"
    weights_sha256: str = ""
    compressed: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> _Record:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need one value for each of {self.channels} channels")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1}) if self._has_twice() else []
        if twice:
            raise ValueError(f"the class {twice[0]!r} occurs twice")
        if max(self.size[0] * self.size[1], self.crop[0] * self.crop[1]) > 2**24:
            raise ValueError("size and crop may have at most 16.8 million pixels")
        return self

    def _has_twice(self) -> bool:
        return len(set(self.classes)) < len(self.classes)
