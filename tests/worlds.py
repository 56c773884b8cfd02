"""Small worlds: images made on the spot, small enough that a test trains on them in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from potstill.data import decode
from potstill.data.formats import from_arrays
from potstill.data.manifest import Manifest
from potstill.data.pixels import fitted

CLASSES = ("circle", "cross", "stripes")


def shapes(count: int = 240, *, size: int = 8, channels: int = 1, seed: int = 0, classes: int = 3) -> Manifest:
    """Return noisy pictures of `classes` patterns, a fifth of them validation and a fifth test."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % classes
    images = np.stack([_picture(kind, size, random) for kind in label])
    if channels == 3:
        images = np.repeat(images[..., None], 3, -1)
    split = np.array(["train", "train", "train", "validation", "test"])[(np.arange(count) // classes) % 5]
    return from_arrays(images, label, splits=split, classes=list(CLASSES[:classes]), root="shapes")


def _picture(kind: int, size: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2 + random.uniform(-1, 1, (2, 1, 1))
    radius = np.hypot(x, y)
    drawn = [abs(radius - size / 3) < 1, (abs(x) < 1) | (abs(y) < 1), (np.floor(x) % 2 == 0)][kind]
    return np.clip(40 + 140 * drawn + random.normal(0, 35, (size, size)), 0, 255).astype(np.uint8)


def one_image(path: Path, *, size: tuple[int, int], resize: int, channels: int) -> torch.Tensor:
    """Return uint8 [1, C, H, W] of one file as prediction sees it: decoded and fitted by itself."""
    pixels = decode.decode(path, name=str(path))
    return torch.from_numpy(np.array(fitted(pixels, size=size, resize=resize, channels=channels)))[None]
