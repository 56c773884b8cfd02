"""Small worlds: images made on the spot, small enough that a test trains on them in a second."""

from __future__ import annotations

import numpy as np

from potstill.data.formats import from_arrays
from potstill.data.manifest import Manifest

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
