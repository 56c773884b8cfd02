"""The images of a transfer, decoded on demand.

A probe on stored features needs labels, splits and content hashes, but no pixels. The channels, resize and crop of the
images are stored with the features.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts, distributed
from potstill.data import decode
from potstill.data.augment import default_policy, parse_policy
from potstill.data.cache import cache_folder
from potstill.data.loader import Loader
from potstill.data.manifest import UNLABELLED, Manifest
from potstill.data.views import View
from potstill.models.card import Card, Fit
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig


@dataclasses.dataclass(frozen=True)
class Shown:
    """The preprocessing of the images, as `Card` has it: channels, resize, crop and fit."""

    channels: int
    resize: int
    crop: tuple[int, int]
    fit: Fit = "crop"

    def on(self, card: Card) -> Card:
        """Return a card with this preprocessing."""
        return card.replace(resize=self.resize, crop=self.crop, fit=self.fit)


def shown_of(data: Data) -> Shown:
    """Return the preprocessing of decoded images."""
    return Shown(data.channels, data.resize, data.crop, data.fit)


class Images:
    """A manifest with splits, and its pixels on demand.

    side: input size of the model in pixels, 0 for any. manifest: a part of the images; None reads all of them.
    """

    def __init__(self, config: DataConfig, side: int = 0, *, manifest: Manifest | None = None) -> None:
        self._config = config if config.size or not side else config.model_copy(update={"size": side})
        self.manifest = manifest or dataset.read(config)

    @functools.cached_property
    def data(self) -> Data:
        """The decoded images."""
        return dataset.prepare(self._config, manifest=self.manifest)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of contents and size, independent of labels and splits."""
        fit = [] if self._config.fit == "crop" else [self._config.fit]
        facts = [decode.VERSION, self._config.size, len(self.manifest), *fit]
        contents = np.ascontiguousarray(self.manifest.digest).tobytes().hex()
        return artifacts.fingerprint([*facts, contents])

    @functools.cached_property
    def folder(self) -> Path:
        """The cache folder for features of these images; it may be deleted at any time."""
        return cache_folder() / "features" / self.fingerprint[:24]

    @functools.cached_property
    def shown(self) -> Shown:
        """The channels, resize and crop of the images."""
        if distributed.world() > 1:  # all processes decode the images, which only waits for them together
            return shown_of(self.data)
        file = self.folder / "shown.json"
        if not file.is_file():
            shown = shown_of(self.data)
            artifacts.write_json(file, dataclasses.asdict(shown))
        stored = json.loads(file.read_text())
        return Shown(**{**stored, "crop": tuple(stored["crop"])})

    def view(self, augment: Any, seed: int) -> View:
        """Return the augmented view of a policy ("auto" chooses by kind of image)."""
        height, width = self.shown.crop
        auto = default_policy(height=height, width=width, channels=self.shown.channels, classes=self.manifest.classes)
        return View(parse_policy(augment, auto=auto), size=self.shown.crop, seed=seed)

    def loader(self, view: View, **options: Any) -> Loader:
        """Return a loader, decoding the images if they are not cached."""
        return Loader(self.manifest, self.data.pixels, view, **options)

    @property
    def labelled(self) -> np.ndarray:
        """The labelled rows of all splits."""
        return np.flatnonzero(self.manifest.label != UNLABELLED)


class Decoded(Images):
    """Images that are already decoded; only the labels of train and validation are used."""

    def __init__(self, data: Data) -> None:
        self.manifest = data.manifest
        self._data = data

    @property
    def data(self) -> Data:
        """The decoded images."""
        return self._data

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of contents and size, independent of the labels."""
        contents = np.ascontiguousarray(self.manifest.digest).tobytes().hex()
        fit = [] if self._data.fit == "crop" else [self._data.fit]
        return artifacts.fingerprint([list(self._data.pixels.shape), contents, *fit])

    @property
    def shown(self) -> Shown:
        """The preprocessing of the images."""
        return shown_of(self._data)

    @property
    def labelled(self) -> np.ndarray:
        """The labelled rows of train and validation."""
        return np.concatenate([self.manifest.rows(split, labelled=True) for split in ("train", "validation")])
