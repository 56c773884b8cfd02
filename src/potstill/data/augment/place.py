"""Operations that only move pixels: shift, pad and crop, flips, and the centre crop at the end of every view.

On a CPU this is done with numpy in one thread: that is faster than training consumes images, and torch's thread pool
waits for its slowest thread, which takes thirty times as long when another program uses a core.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from potstill.data.augment.operation import Operation, Sometimes, integers
from potstill.progress import note

Fill = Literal["zero", "edge", "reflect"]
_NUMPY_MODES: dict[Fill, Literal["constant", "edge", "reflect"]] = {
    "zero": "constant",
    "edge": "edge",
    "reflect": "reflect",
}


def centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the central `size` = (height, width) of [B, C, H, W]; an odd remainder goes to the bottom and right."""
    spare = [have - want for have, want in zip(images.shape[-2:], size, strict=True)]
    assert min(spare) >= 0, f"images of {tuple(images.shape[-2:])} are smaller than the crop {size}"
    top, left = spare[0] // 2, spare[1] // 2
    return images[..., top : top + size[0], left : left + size[1]]


def padded(images: Tensor, by: int, fill: Fill) -> Tensor:
    """Return uint8 [B, C, H + 2 by, W + 2 by]."""
    if images.device.type == "cpu":
        return torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (by, by), (by, by)), mode=_NUMPY_MODES[fill]))
    return F.pad(images, (by,) * 4, mode={"zero": "constant", "edge": "replicate", "reflect": "reflect"}[fill])


def windows(images: Tensor, top: np.ndarray, left: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return the window of `size` whose corner is at (top, left), int64 [B] each, of every image."""
    if images.device.type == "cpu":
        every = np.lib.stride_tricks.sliding_window_view(images.numpy(), size, axis=(2, 3))
        return torch.from_numpy(every[np.arange(len(images)), :, top, left])
    every = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # a view: [B, C, tops, lefts, h, w]
    rows = torch.arange(len(images), device=images.device)
    return every[rows, :, torch.from_numpy(top).to(images.device), torch.from_numpy(left).to(images.device)]


def mirrored(images: Tensor, axis: int) -> Tensor:
    """Return the images flipped along an axis."""
    if images.device.type == "cpu":
        return torch.from_numpy(np.flip(images.numpy(), axis).copy())
    return images.flip(axis)


class Shift(Sometimes):
    """Translate by a whole number of pixels, up to `pixels` in each direction; the border is filled by `fill`."""

    name: ClassVar[str] = "shift"
    main: ClassVar[str] = "pixels"
    draws: ClassVar[int] = 3
    pixels: int | None = Field(
        default=None, ge=1, description="maximum shift in pixels; null: one twentieth of the short side, at least 1"
    )
    fill: Literal["zero", "edge"] = "zero"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        height, width = images.shape[-2:]
        most = self.pixels or max(1, min(height, width) // 20)
        corner = integers(u, 2 * most + 1)
        return windows(padded(images, most, self.fill), corner[:, 0], corner[:, 1], (height, width))


class PadCrop(Operation):
    """Pad every side by `pad` pixels, then crop the view's size at a random position (He et al., arXiv:1512.03385)."""

    name: ClassVar[str] = "pad-crop"
    main: ClassVar[str] = "pad"
    draws: ClassVar[int] = 2
    pad: int = Field(default=4, ge=0)
    fill: Fill = "reflect"

    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        height, width = images.shape[-2:]
        spare = np.array([height - size[0], width - size[1]]) + 2 * self.pad
        corner = integers(u, spare + 1)
        return windows(padded(images, self.pad, self._fill(height, width)), corner[:, 0], corner[:, 1], size)

    def _fill(self, height: int, width: int) -> Fill:
        if self.fill == "reflect" and self.pad >= min(height, width):
            note(
                f"Augmentation pad-crop: images of {width}x{height} pixels are too small for reflection padding by "
                f"{self.pad} pixels; edge padding is used instead."
            )
            return "edge"
        return self.fill


class Flip(Sometimes):
    """Flip horizontally, with probability `p`."""

    name: ClassVar[str] = "flip"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 1
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return mirrored(images, -1)


class FlipVertical(Flip):
    """Flip vertically, with probability `p`: for images without an upright direction, such as aerial or microscopy."""

    name: ClassVar[str] = "flip-vertical"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return mirrored(images, -2)
