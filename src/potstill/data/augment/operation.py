"""`Operation`: one augmentation of a batch, with a separate strength per image.

Images are uint8 [B, C, H, W] between operations: cropping and flipping then only move bytes, and results do not
depend on the order of floating-point sums. An operation draws no random numbers; it receives uniform numbers, so it
is a pure function and can be tested with chosen numbers.
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
        raise ValueError(f"must be [min, max], but was [{pair[0]}, {pair[1]}].")
    return pair


def _from_one(value: Any) -> Any:
    return (value, 1.0) if isinstance(value, int | float) else value


Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Shares = Annotated[tuple[Share, Share], BeforeValidator(_from_one), AfterValidator(_in_order)]
"""[min, max] fraction of the area; a single number is the minimum, with a maximum of 1."""
Ratios = Annotated[tuple[Positive, Positive], AfterValidator(_in_order)]


PART = 2**21  # values changed at a time on a CPU


class Operation(Config):
    """An operation with its settings. `{name: value}` in a recipe sets the field named by `main`."""

    name: ClassVar[str]
    main: ClassVar[str]
    draws: ClassVar[int] = 0
    """The number of uniform numbers that each image needs."""

    @abstractmethod
    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        """Return uint8 [B, C, h, w].

        images: uint8 [B, C, H, W]. u: float64 [B, draws] in [0, 1). size: (height, width) of the final view, used
        only by operations that crop.
        """

    def spelled(self) -> dict[str, dict[str, Any]]:
        """Return the operation as in a recipe, with all settings."""
        return {self.name: self.to_json()}


class Sometimes(Operation):
    """An operation that keeps the image size and is applied to each image with probability `p`."""

    p: float = Field(default=1.0, gt=0, le=1, description="probability that an image is changed")

    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        return on_rows(images, u[:, 0] < self.p, lambda part, rows: self._in_parts(part, u[rows, 1:]))

    def _in_parts(self, images: Tensor, u: np.ndarray) -> Tensor:
        """Change a few photos at a time on a CPU, so that their float copies reuse the same memory."""
        count = max(1, PART // images[0].numel())
        if images.device.type != "cpu" or len(images) <= count:
            return self.change(images, u)
        starts = range(0, len(images), count)
        return torch.cat([self.change(images[start : start + count], u[start : start + count]) for start in starts])

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
    return put(images, rows, change(take(images, rows), rows))


def take(images: Tensor, rows: np.ndarray) -> Tensor:
    """Return the images of these rows; on a CPU in one thread, like `put` (see `place.py`)."""
    if images.device.type == "cpu":
        return torch.from_numpy(images.numpy()[rows])
    return images[torch.from_numpy(rows).to(images.device)]


def put(images: Tensor, rows: np.ndarray, changed: Tensor) -> Tensor:
    """Return a copy of the images with these rows replaced."""
    if images.device.type == "cpu":
        result = images.numpy().copy(order="K")
        result[rows] = changed.numpy()
        return torch.from_numpy(result)
    result = images.clone()
    result[torch.from_numpy(rows).to(images.device)] = changed
    return result


def in_unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in 0..1. numpy allocates large arrays in huge pages, torch does not: the first
    use of a new batch of photos costs a page fault every 4 kB, five times the cost of the division."""
    if images.device.type == "cpu":
        return torch.from_numpy(np.divide(images.numpy(), np.float32(255)))
    return torch.div(images, 255)


def per_image(values: np.ndarray, images: Tensor) -> Tensor:
    """Return one number per image as float32 [B, 1, 1, 1], on the device of the images."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(images.device)[:, None, None, None]


def integers(u: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Return int64 in 0..count-1 from uniform numbers."""
    return np.floor(u * count).astype(np.int64)


def spread(u: np.ndarray, most: float) -> np.ndarray:
    """Return numbers in -most..most from uniform numbers."""
    return (2 * u - 1) * most
