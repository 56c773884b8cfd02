"""Random-resized crop: a random box of random aspect ratio, resized to the view's size (arXiv:1409.4842)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.data.augment.operation import Operation, Ratios, Shares, integers
from potstill.torch_context import threads

ATTEMPTS = 10  # box shapes tried before the largest centred one is used


class RandomResizedCrop(Operation):
    """Crop a box with `scale` (min, max) of the area and aspect `ratio` (min, max) of width to height, and resize it
    to the view's size (bilinear, antialiased). The distribution is that of torchvision's RandomResizedCrop."""

    name: ClassVar[str] = "random-resized-crop"
    main: ClassVar[str] = "scale"
    draws: ClassVar[int] = 2 * ATTEMPTS + 2
    scale: Shares = (0.08, 1.0)
    ratio: Ratios = (3 / 4, 4 / 3)

    def apply(self, images: Tensor, u: np.ndarray, size: tuple[int, int]) -> Tensor:
        boxes = self.boxes(u, *images.shape[-2:])
        return resize_on_cpu(images, boxes, size) if images.device.type == "cpu" else resize(images, boxes, size)

    def boxes(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return int64 [B, 4]: top, left, height and width of the box in each image."""
        sides = self._sides(u[:, : 2 * ATTEMPTS], height, width)
        return np.stack(
            [*(integers(u[:, -2 + i], (height, width)[i] - sides[:, i] + 1) for i in range(2)), *sides.T], 1
        )

    def _sides(self, u: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return int64 [B, 2]: the first of the tried shapes that fits into the image."""
        area = (self.scale[0] + u[:, ::2] * (self.scale[1] - self.scale[0])) * height * width
        low, high = np.log(self.ratio)
        ratio = np.exp(low + u[:, 1::2] * (high - low))
        tried = np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], -1).round().astype(np.int64)
        tried = np.concatenate([tried, np.broadcast_to(self._fallback(height, width), (len(u), 1, 2))], 1)
        fits = ((tried > 0) & (tried <= (height, width))).all(-1)
        return tried[np.arange(len(u)), fits.argmax(1)]

    def _fallback(self, height: int, width: int) -> tuple[int, int]:
        if width / height < self.ratio[0]:
            return min(round(width / self.ratio[0]), height), width
        return height, min(round(height * self.ratio[1]), width)


def resize_on_cpu(images: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return uint8 [B, C, h, w]: the box of every image, resized by torch's uint8 kernel, image by image.

    The kernel takes one box per batch, and is more than twice as fast in channels-last layout. It runs in one thread:
    several threads that synchronise every tenth of a millisecond took ten times as long.
    """
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    result = torch.empty((*images.shape[:2], *size), dtype=torch.uint8, memory_format=layout)
    with threads(1):
        for row, (top, left, height, width) in enumerate(boxes.tolist()):
            part = images[row : row + 1, :, top : top + height, left : left + width]
            result[row] = F.interpolate(part, size, mode="bilinear", antialias=True)[0]
    return result


def resize(images: Tensor, boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return the same as `resize_on_cpu`, up to rounding, by two matrix products per batch: for accelerators."""
    corner = torch.from_numpy(boxes).to(images.device, torch.float32)
    rows = _weights(corner[:, 0], corner[:, 2], images.shape[-2], size[0])
    columns = _weights(corner[:, 1], corner[:, 3], images.shape[-1], size[1])
    resized = rows[:, None] @ images.float() @ columns[:, None].transpose(-1, -2)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _weights(start: Tensor, length: Tensor, have: int, want: int) -> Tensor:
    """Return float32 [B, want, have]: a triangle filter as wide as an output pixel in input pixels, at least 1."""
    step = (length / want)[:, None, None]
    centre = start[:, None, None] + (torch.arange(want, device=start.device)[:, None] + 0.5) * step
    pixel = torch.arange(have, device=start.device) + 0.5
    weight = (1 - (pixel - centre).abs() / step.clamp_min(1)).clamp_min(0)
    weight = weight * ((pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True)
