"""Operations that rotate, scale, shear or translate the image with interpolation."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from potstill.data.augment.operation import Sometimes, per_image, spread

Fill = Literal["zero", "edge", "reflect"]
Interpolation = Literal["bilinear", "nearest"]
_PADDING = {"zero": "zeros", "edge": "border", "reflect": "reflection"}


def warp(
    images: Tensor, matrix: np.ndarray, *, fill: Fill = "zero", interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Return uint8 [B, C, H, W] whose pixel at (x, y) is sampled at `matrix @ (x, y, 1)`, with one matrix per image.

    matrix: float64 [B, 2, 3], in pixels from the centre of the image, y downwards.
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    m = [[per_image(matrix[:, i, j], images)[:, 0] for j in range(3)] for i in range(2)]
    # Separate products and sums: a matrix product may group them differently at another batch size.
    where = [(m[i][0] * x + m[i][1] * y + m[i][2]) * (2 / length) for i, length in enumerate((width, height))]
    sampled = F.grid_sample(
        images.float(),
        torch.stack(where, -1),
        mode=interpolation,
        padding_mode=_PADDING[fill],
        align_corners=False,
    )
    return sampled.round_().to(torch.uint8)


def identity(count: int) -> np.ndarray:
    """Return float64 [count, 2, 3] that leaves every image unchanged."""
    return np.tile(np.eye(2, 3), (count, 1, 1))


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Return float64 [B, 2, 3] that rotates image b counter-clockwise by `degrees[b]`."""
    angle, matrix = np.radians(degrees), identity(len(degrees))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 1, 0] = np.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


class Rotate(Sometimes):
    """Rotate by up to `degrees` in either direction."""

    name: ClassVar[str] = "rotate"
    main: ClassVar[str] = "degrees"
    draws: ClassVar[int] = 2
    degrees: float = Field(default=10.0, gt=0, le=180)
    fill: Fill = "zero"
    interpolation: Interpolation = "bilinear"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        matrix = rotation(spread(u[:, 0], self.degrees))
        return warp(images, matrix, fill=self.fill, interpolation=self.interpolation)


class Affine(Sometimes):
    """Rotate by up to `degrees`, scale by up to 1 +- `scale`, shear horizontally by up to `shear` degrees, and
    translate by up to `translate` of each side, all in one resampling."""

    name: ClassVar[str] = "affine"
    main: ClassVar[str] = "degrees"
    draws: ClassVar[int] = 6
    degrees: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.1, ge=0, lt=1)
    shear: float = Field(default=0.0, ge=0, lt=90)
    translate: float = Field(default=0.0, ge=0, lt=1)
    fill: Fill = "zero"
    interpolation: Interpolation = "bilinear"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        height, width = images.shape[-2:]
        return warp(images, self._matrix(u, (height, width)), fill=self.fill, interpolation=self.interpolation)

    def _matrix(self, u: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        matrix = rotation(spread(u[:, 0], self.degrees))
        matrix /= (1 + spread(u[:, 1], self.scale))[:, None, None]
        matrix[:, 0] += np.tan(np.radians(spread(u[:, 2], self.shear)))[:, None] * matrix[:, 1]
        moved = spread(u[:, 3:5], self.translate) * (size[1], size[0])
        for axis in range(2):
            matrix[:, axis, 2] -= matrix[:, axis, 0] * moved[:, 0] + matrix[:, axis, 1] * moved[:, 1]
        return matrix
