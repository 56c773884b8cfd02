"""What the sides of a benchmark share: images, a teacher, and the names of the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.formats import from_arrays, read_manifest
from potstill.data.manifest import Manifest
from potstill.data.pixels import load_pixels
from potstill.models import zoo
from potstill.models.outputs import Classifier

TEACHER, STUDENT = "builtin:resnet56-cifar", "builtin:resnet20-cifar"
CLASSES = tuple("0123456789")
BATCH, IMAGES = 128, 8192
TEMPERATURE, ALPHA = 4.0, 0.1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class World:
    """images: uint8 [N, 32, 32, 3]; label: int64 [N]; weights: a file for the teacher, None for random ones."""

    images: np.ndarray
    label: np.ndarray
    weights: Path | None = None

    @property
    def manifest(self) -> Manifest:
        """The images, all of them training images."""
        splits = np.array(["train"] * len(self.label))
        return from_arrays(self.images, self.label, splits=splits, classes=list(CLASSES), root="benchmark")

    def network(self, name: str, seed: int = 0, *, blocks: bool = False) -> Classifier:
        """Return a network with the usual normalisation of colour photos; the teacher with its weights.

        blocks: a student starts with blocks of the teacher.
        """
        given = self.weights if name == TEACHER else f"blocks:{self.weights}" if blocks else None
        made = zoo.create(name, classes=CLASSES, size=(32, 32), channels=3, seed=seed, weights=given)
        return zoo.normalised(made, mean=MEAN, std=STD)


def generated(count: int = IMAGES) -> World:
    """Return noise in place of images: how fast they are trained on does not depend on what they show."""
    random = np.random.default_rng(0)
    return World(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % len(CLASSES))


def cifar(folder: Path, weights: Path | None = None, *, split: str = "train", count: int = IMAGES) -> World:
    """Return a part of CIFAR-10 (folders SPLIT/CLASS), spread over the classes. weights: of the teacher."""
    manifest = read_manifest(folder)
    rows = manifest.rows(split)
    rows = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    pixels = load_pixels(manifest.select(rows), size=(32, 32), resize=32, channels=3).take(np.arange(len(rows)))
    return World(pixels.permute(0, 2, 3, 1).contiguous().numpy(), manifest.label[rows], weights)


def load(file: Path) -> World:
    """Return the world that `save` wrote."""
    with np.load(file) as arrays:
        weights = str(arrays["weights"])
        return World(arrays["images"], arrays["label"], Path(weights) if weights else None)


def save(world: World, file: Path) -> None:
    """Write a world for the processes of its sides."""
    np.savez(file, images=world.images, label=world.label, weights=str(world.weights or ""))
