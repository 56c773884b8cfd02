"""Cards that are read back: one schema, whatever holds them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from potstill.errors import ModelError
from potstill.models.card import Card, Fit

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
    fit: Fit = "crop"
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


def card_from_json(data: object, *, origin: str = "The card") -> Card:
    """Return a card from the result of `Card.to_json`; raise `ModelError` that names every wrong key.

    origin: what holds the card, the beginning of that sentence.
    """
    try:
        return Card(**dict(_Record.model_validate(data)))
    except ValidationError as error:
        found = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()]
        raise ModelError(
            f"{origin} cannot be used: {'; '.join(found[:3])}{', ...' if found[3:] else ''}. It was edited, or "
            "written by another version of potstill. Run the command that wrote it again."
        ) from None


def card_from_text(text: str, *, origin: str) -> Card:
    """Return a card from the JSON inside a file; raise `ModelError` as `card_from_json`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{origin} cannot be used: it is not JSON ({error}). Export the model again.") from None
    return card_from_json(data, origin=origin)
