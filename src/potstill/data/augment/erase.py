"""Operations that occlude a part of the image: random erasing (arXiv:1708.04896) and Cutout (arXiv:1708.04552)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from potstill.data.augment.operation import Ratios, Shares, Sometimes, integers

Fill = Literal["zero", "mean", "colour"]


def hide(images: Tensor, boxes: np.ndarray, fill: Fill, u: np.ndarray) -> Tensor:
    """Return the images with one filled box each.

    boxes: int64 [B, 4], top, bottom, left, right; may extend beyond the border. fill: black, the image's own mean
    colour, or a random colour from u, float64 [B, 3].
    """
    top, bottom, left, right = (torch.from_numpy(side).to(images.device)[:, None, None] for side in boxes.T)
    y = torch.arange(images.shape[-2], device=images.device)[:, None]
    x = torch.arange(images.shape[-1], device=images.device)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return torch.where(inside[:, None], _colour(images, fill, u), images)


def _colour(images: Tensor, fill: Fill, u: np.ndarray) -> Tensor:
    """Return uint8 [B, C, 1, 1]."""
    if fill == "zero":
        return images.new_zeros(len(images), 1, 1, 1)
    if fill == "colour":
        return torch.from_numpy(integers(u[:, : images.shape[1]], 256)).to(images)[:, :, None, None]
    total = images.sum((2, 3), keepdim=True, dtype=torch.int64)
    return (total // (images.shape[-2] * images.shape[-1])).to(torch.uint8)


class Erase(Sometimes):
    """Fill a box with `scale` (min, max) of the area and aspect `ratio` (min, max) of height to width."""

    name: ClassVar[str] = "erase"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 8
    p: float = Field(default=0.25, gt=0, le=1)
    scale: Shares = (0.02, 0.33)
    ratio: Ratios = (0.3, 3.3)
    fill: Fill = "mean"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        size = np.array(images.shape[-2:])
        area = (self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])) * size.prod()
        low, high = np.log(self.ratio)
        ratio = np.exp(low + u[:, 1] * (high - low))
        sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1).round().astype(np.int64).clip(1, size)
        corner = integers(u[:, 2:4], size - sides + 1)
        return hide(images, _boxes(corner, corner + sides), self.fill, u[:, 4:])


class Cutout(Sometimes):
    """Fill a square of `pixels` per side around a random centre; at the border part of it lies outside the image."""

    name: ClassVar[str] = "cutout"
    main: ClassVar[str] = "pixels"
    draws: ClassVar[int] = 6
    pixels: int = Field(default=8, ge=1)
    fill: Fill = "mean"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        corner = integers(u[:, :2], np.array(images.shape[-2:])) - self.pixels // 2
        return hide(images, _boxes(corner, corner + self.pixels), self.fill, u[:, 2:])


def _boxes(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)
