"""Operations on brightness and colour. torchvision's functions are used where they treat each image of a batch
separately; those with one factor for the whole batch are implemented here with one factor per image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from potstill.data.augment.operation import Sometimes, per_image, spread
from potstill.progress import note


def grey(images: Tensor) -> Tensor:
    """Return int32 [B, 1, H, W]: luma (ITU-R 601) in integer arithmetic, as in Pillow, so equal on every device."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def blend(images: Tensor, plain: Tensor | float, factor: np.ndarray) -> Tensor:
    """Return plain + factor * (images - plain), one factor per image: 0 gives `plain`, 1 gives the images."""
    ratio = per_image(factor, images)
    return (images * ratio + plain * (1 - ratio)).round_().clamp_(0, 255).to(torch.uint8)


def brighten(images: Tensor, factor: np.ndarray) -> Tensor:
    """Multiply by a factor; 0 is black."""
    return (images * per_image(factor, images)).round_().clamp_(0, 255).to(torch.uint8)


def adjust_contrast(images: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with the mean grey; 0 is uniform grey."""
    mean = grey(images).sum((1, 2, 3)).double() / (images.shape[-2] * images.shape[-1])
    return blend(images, mean.float()[:, None, None, None], factor)


def adjust_colour(images: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with the grey image; 0 is grey."""
    return images if images.shape[1] == 1 else blend(images, grey(images), factor)


def adjust_sharpness(images: Tensor, factor: np.ndarray) -> Tensor:
    """Blend with a smoothed image; 0 is smooth, 2 is sharp."""
    return blend(images, smooth(images), factor)


def smooth(images: Tensor) -> Tensor:
    """Return uint8 [B, C, H, W]: a 3x3 mean with weight 5/13 at the centre; the border pixels are unchanged.

    Computed from sums of slices, because torch's depthwise convolution on a CPU takes ten times as long.
    """
    values = images.short()
    tall = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    total = tall[..., :-2] + tall[..., 1:-1] + tall[..., 2:] + 4 * values[..., 1:-1, 1:-1]
    result = images.clone()
    result[..., 1:-1, 1:-1] = torch.div(total, 13).round_().to(torch.uint8)
    return result


def shift_hue(images: Tensor, turn: np.ndarray) -> Tensor:
    """Rotate the hue by a fraction of the colour circle, -0.5..0.5."""
    from torchvision.transforms.v2.functional import _color

    if images.shape[1] == 1:
        return images
    hsv = _color._rgb_to_hsv(images / 255)
    hsv[:, 0] = (hsv[:, 0] + per_image(turn, images)[:, 0]).remainder_(1.0)
    return _color._hsv_to_rgb(hsv).mul_(255).round_().to(torch.uint8)


def reduce_bits(images: Tensor, bits: np.ndarray) -> Tensor:
    """Keep the highest bits, 0..8."""
    mask = torch.from_numpy((255 << (8 - bits.astype(np.int64))) & 255).to(images.device, torch.uint8)
    return images & mask[:, None, None, None]


def solarized(images: Tensor, threshold: np.ndarray) -> Tensor:
    """Invert values at or above a threshold in 0..1."""
    level = torch.from_numpy(np.ceil(threshold * 255).astype(np.uint8)).to(images.device)
    return torch.where(images >= level[:, None, None, None], 255 - images, images)


def equalized(images: Tensor) -> Tensor:
    """Equalize the histogram of each channel."""
    from torchvision.transforms.v2 import functional as V

    return V.equalize(images)


def autocontrasted(images: Tensor) -> Tensor:
    """Stretch each channel to the full range."""
    from torchvision.transforms.v2 import functional as V

    return V.autocontrast(images)


class Brightness(Sometimes):
    """Multiply by a factor in 1 - `amount` .. 1 + `amount`."""

    name: ClassVar[str] = "brightness"
    main: ClassVar[str] = "amount"
    draws: ClassVar[int] = 2
    amount: float = Field(default=0.2, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return brighten(images, 1 + spread(u[:, 0], self.amount))


class Contrast(Sometimes):
    """Scale the contrast around the mean grey by a factor in 1 - `amount` .. 1 + `amount`."""

    name: ClassVar[str] = "contrast"
    main: ClassVar[str] = "amount"
    draws: ClassVar[int] = 2
    amount: float = Field(default=0.2, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return adjust_contrast(images, 1 + spread(u[:, 0], self.amount))


class Saturation(Sometimes):
    """Scale the saturation by a factor in 1 - `amount` .. 1 + `amount`."""

    name: ClassVar[str] = "saturation"
    main: ClassVar[str] = "amount"
    draws: ClassVar[int] = 2
    amount: float = Field(default=0.2, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        _needs_colour(self.name, images)
        return adjust_colour(images, 1 + spread(u[:, 0], self.amount))


class Hue(Sometimes):
    """Rotate the hue by up to `amount` of the colour circle in either direction (0.5 is half of it)."""

    name: ClassVar[str] = "hue"
    main: ClassVar[str] = "amount"
    draws: ClassVar[int] = 2
    amount: float = Field(default=0.05, gt=0, le=0.5)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        _needs_colour(self.name, images)
        return shift_hue(images, spread(u[:, 0], self.amount))


class Grayscale(Sometimes):
    """Convert to grey, with probability `p`."""

    name: ClassVar[str] = "grayscale"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 1
    p: float = Field(default=0.1, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        _needs_colour(self.name, images)
        return grey(images).to(torch.uint8).expand_as(images)


class Sharpness(Sometimes):
    """Change the sharpness by a factor in 1 - `amount` .. 1 + `amount`."""

    name: ClassVar[str] = "sharpness"
    main: ClassVar[str] = "amount"
    draws: ClassVar[int] = 2
    amount: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return adjust_sharpness(images, 1 + spread(u[:, 0], self.amount))


class Posterize(Sometimes):
    """Keep the highest `bits` bits of each value, with probability `p`."""

    name: ClassVar[str] = "posterize"
    main: ClassVar[str] = "bits"
    draws: ClassVar[int] = 1
    bits: int = Field(default=4, ge=1, le=7)
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return reduce_bits(images, np.full(len(images), self.bits))


class Solarize(Sometimes):
    """Invert values above `threshold` (0..1), with probability `p`."""

    name: ClassVar[str] = "solarize"
    main: ClassVar[str] = "threshold"
    draws: ClassVar[int] = 1
    threshold: float = Field(default=0.5, ge=0, le=1)
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return solarized(images, np.full(len(images), self.threshold))


class Equalize(Sometimes):
    """Equalize the histogram of each channel, with probability `p`."""

    name: ClassVar[str] = "equalize"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 1
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return equalized(images)


class AutoContrast(Sometimes):
    """Stretch each channel to the full range, with probability `p`."""

    name: ClassVar[str] = "autocontrast"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 1
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return autocontrasted(images)


class Invert(Sometimes):
    """Invert all values, with probability `p`."""

    name: ClassVar[str] = "invert"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 1
    p: float = Field(default=0.5, gt=0, le=1)

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        return 255 - images


def _needs_colour(name: str, images: Tensor) -> None:
    if images.shape[1] == 1:
        note(f"The images are grey, so the augmentation {name} has no effect.")
