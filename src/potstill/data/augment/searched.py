"""RandAugment (arXiv:1909.13719), TrivialAugmentWide (arXiv:2103.10158) and AutoAugment (arXiv:1805.09501) in batch.

The tables of operations, strengths and sub-policies are torchvision's. torchvision draws once for a whole batch; here
operations are drawn per image, and images with the same operation are processed together, each with its own strength.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from potstill.data.augment import tone, warp
from potstill.data.augment.operation import Sometimes, integers, put, take

BINS = 31  # levels of strength, torchvision's default
Space = Mapping[str, tuple[Callable[[int, int, int], Tensor | None], bool]]
"""torchvision's table: name -> (function of (bins, height, width) to strengths, whether the sign is random)."""


def strengthen(name: str, images: Tensor, strength: np.ndarray, *, interpolation: warp.Interpolation) -> Tensor:
    """Return uint8 [B, C, H, W] after the operation with torchvision's name `name`.

    strength: float64 [B], in the units of torchvision's tables: pixels, degrees, bits, a threshold, or factor - 1.
    """
    height, width = images.shape[-2:]
    matrix = warp.identity(len(images))
    match name:
        case "Identity":
            return images
        case "ShearX":  # around the upper left corner, as in the paper's code
            matrix[:, 0, 1], matrix[:, 0, 2] = strength, strength * height / 2
        case "ShearY":
            matrix[:, 1, 0], matrix[:, 1, 2] = strength, strength * width / 2
        case "TranslateX":
            matrix[:, 0, 2] = -np.trunc(strength)
        case "TranslateY":
            matrix[:, 1, 2] = -np.trunc(strength)
        case "Rotate":
            matrix = warp.rotation(strength)
        case _:
            return _toned(name, images, strength)
    return warp.warp(images, matrix, interpolation=interpolation)


def _toned(name: str, images: Tensor, strength: np.ndarray) -> Tensor:
    match name:
        case "Brightness":
            return tone.brighten(images, 1 + strength)
        case "Color":
            return tone.adjust_colour(images, 1 + strength)
        case "Contrast":
            return tone.adjust_contrast(images, 1 + strength)
        case "Sharpness":
            return tone.adjust_sharpness(images, 1 + strength)
        case "Posterize":
            return tone.reduce_bits(images, strength)
        case "Solarize":
            return tone.solarized(images, strength)
        case "AutoContrast":
            return tone.autocontrasted(images)
        case "Equalize":
            return tone.equalized(images)
        case "Invert":
            return 255 - images
    raise AssertionError(f"torchvision's table names an operation {name} that is not implemented here")


def _table(space: Space, bins: int, images: Tensor) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return (names, strengths float64 [operations, bins], signed bool [operations])."""
    strengths = [function(bins, *images.shape[-2:]) for function, _ in space.values()]
    table = [np.zeros(bins) if s is None else s.double().numpy() for s in strengths]
    return list(space), np.stack(table), np.array([signed for _, signed in space.values()])


class Searched(Sometimes):
    """An operation that selects one of several operations for each image."""

    interpolation: warp.Interpolation = "bilinear"

    def _chosen(self, images: Tensor, names: list[str], choice: np.ndarray, strength: np.ndarray) -> Tensor:
        """Return image b after operation `names[choice[b]]` with strength `strength[b]`; unchanged where it is -1."""
        order, changed = [], []
        for number, name in enumerate(names):
            rows = np.flatnonzero(choice == number)
            if len(rows) and name != "Identity":
                part = take(images, rows)
                order.append(rows)
                changed.append(strengthen(name, part, strength[rows], interpolation=self.interpolation))
        return put(images, np.concatenate(order), torch.cat(changed)) if order else images


class RandAugment(Searched):
    """`n` operations in sequence, each drawn from 14, all with strength `magnitude` (0..30).

    9 is common for large networks; small students need less, 0 to 6.
    """

    name: ClassVar[str] = "randaugment"
    main: ClassVar[str] = "magnitude"
    n: int = Field(default=2, ge=1, le=10)
    magnitude: int = Field(default=9, ge=0, lt=BINS)

    @property
    def draws(self) -> int:
        return 1 + 2 * self.n

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        from torchvision.transforms.v2 import RandAugment

        names, table, signed = _table(RandAugment._AUGMENTATION_SPACE, BINS, images)
        for pick, sign in zip(u[:, ::2].T, u[:, 1::2].T, strict=True):
            choice = integers(pick, len(names))
            strength = table[choice, self.magnitude] * _signs(sign, signed[choice])
            images = self._chosen(images, names, choice, strength)
        return images


class TrivialAugment(Searched):
    """One of 14 operations with random strength: nothing to tune (the "wide" ranges of the paper)."""

    name: ClassVar[str] = "trivialaugment"
    main: ClassVar[str] = "p"
    draws: ClassVar[int] = 4

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        from torchvision.transforms.v2 import TrivialAugmentWide

        names, table, signed = _table(TrivialAugmentWide._AUGMENTATION_SPACE, BINS, images)
        choice = integers(u[:, 0], len(names))
        strength = table[choice, integers(u[:, 1], BINS)] * _signs(u[:, 2], signed[choice])
        return self._chosen(images, names, choice, strength)


class AutoAugment(Searched):
    """One of 25 pairs of operations, found by the search on `dataset`."""

    name: ClassVar[str] = "autoaugment"
    main: ClassVar[str] = "dataset"
    draws: ClassVar[int] = 6
    dataset: Literal["cifar10", "imagenet", "svhn"] = "imagenet"

    def change(self, images: Tensor, u: np.ndarray) -> Tensor:
        from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

        searched = AutoAugment(AutoAugmentPolicy(self.dataset))
        names, table, signed = _table(searched._AUGMENTATION_SPACE, 10, images)
        pair = integers(u[:, 0], len(searched._policies))
        for second in range(2):
            entries = [policy[second] for policy in searched._policies]
            kind = np.array([names.index(name) for name, _, _ in entries])[pair]
            probability = np.array([p for _, p, _ in entries])[pair]
            level = np.array([level or 0 for _, _, level in entries])[pair]
            strength = table[kind, level] * _signs(u[:, 3 + second], signed[kind])
            choice = np.where(u[:, 1 + second] < probability, kind, -1)
            images = self._chosen(images, names, choice, strength)
        return images


def _signs(u: np.ndarray, signed: np.ndarray) -> np.ndarray:
    return np.where(signed & (u < 0.5), -1.0, 1.0)
