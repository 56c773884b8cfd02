"""`Operation`: one augmentation of a batch, whose strength differs from image to image.

Images are uint8 [B, C, H, W] between operations: cropping and flipping then only move bytes, and a result does not
depend on how floating-point sums were grouped. An operation draws nothing itself; it is given uniform numbers, so it
is a pure function and can be tested with numbers chosen by hand.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor

from potstill.config import Config


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"must be [least, most], but was [{pair[0]}, {pair[1]}].")
    return pair


def _from_one(value: Any) -> Any:
    return (value, 1.0) if isinstance(value, int | float) else value


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Shares = Annotated[tuple[Share, Share], BeforeValidator(_from_one), AfterValidator(_in_order)]
"""[least, most] of the area; one number is the least, up to all of it."""
Ratios = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]


class Operation(Config):
    """An operation with its settings. `{name: value}` in a recipe sets the field called `main`."""

    name: ClassVar[str]
    main: ClassVar[str]
    draws: ClassVar[int] = 0
    """How many uniform numbers each image needs."""

    @abstractmethod
    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Return uint8 [B, C, h, w].

        images: uint8 [B, C, H, W]. u: float64 [B, draws] in [0, 1). size: (height, width) that the view ends with;
        only the operations that crop use it.
        """

    def spelled(self) -> dict[str, dict[str, Any]]:
        """Return the operation as a recipe would spell it, every setting included."""
        return {self.name: self.to_json()}


class Sometimes(Operation):
    """An operation that keeps the size of the images and acts on each with probability `p`."""

    p: float = Field(default=1.0, gt=0, le=1, description="probability that an image is changed")

    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        if self.p == 1:
            return self.change(images, u[:, 1:])
        return on_rows(images, u[:, 0] < self.p, lambda part, rows: self.change(part, u[rows, 1:]))

    @abstractmethod
    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        """Return uint8 [B, C, H, W]; u: float64 [B, draws - 1]."""


def on_rows(images: Tensor, chosen: np.ndarray, change: Any) -> Tensor:
    """Return the images with `change(images[rows], rows)` in the rows where `chosen` (bool [B]) is true."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return images
    if len(rows) == len(chosen):
        return change(images, rows)
    where = torch.from_numpy(rows).to(images.device)
    result = images.clone()
    result[where] = change(images[where], rows)
    return result


def per_image(values: np.ndarray, images: Tensor) -> Tensor:
    """Return one number an image as float32 [B, 1, 1, 1], where the images are."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(images.device)[:, None, None, None]


def integers(u: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Return int64 in 0..count-1 from uniform numbers."""
    return np.floor(u * count).astype(np.int64)


def spread(u: np.ndarray, most: float) -> np.ndarray:
    """Return numbers in -most..most from uniform ones."""
    return (2 * u - 1) * most
