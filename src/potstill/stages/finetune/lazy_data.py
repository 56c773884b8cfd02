"""The images of a transfer, decoded only when somebody wants to see them.

A probe on stored features needs labels, splits and content hashes, but no pixels. What else must be known of the
images, their channels and how they are cut, is remembered beside the features.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts
from potstill.data import decode
from potstill.data.augment import default_policy, parse_policy
from potstill.data.cache import cache_folder
from potstill.data.loader import Loader
from potstill.data.manifest import UNLABELLED
from potstill.data.views import View
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig


@dataclasses.dataclass(frozen=True)
class Shown:
    """How images are shown: their channels, the short side they are resized to, the (height, width) cut out."""

    channels: int
    resize: int
    crop: tuple[int, int]


class Images:
    """A manifest with splits, and its pixels on demand; side: pixels a side that the model wants, 0 for any."""

    def __init__(self, config: DataConfig, side: int = 0) -> None:
        self._config = config if config.size or not side else config.model_copy(update={"size": side})
        self.manifest = dataset.read(config)

    @functools.cached_property
    def data(self) -> Data:
        """The decoded images."""
        return dataset.prepare(self._config, manifest=self.manifest)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the contents and the size, whatever the labels and splits."""
        facts = [decode.VERSION, self._config.size, len(self.manifest)]
        contents = np.ascontiguousarray(self.manifest.digest).tobytes().hex()
        return artifacts.fingerprint([*facts, contents])

    @functools.cached_property
    def folder(self) -> Path:
        """Where features of these images are kept; it may be deleted at any time."""
        return cache_folder() / "features" / self.fingerprint[:24]

    @functools.cached_property
    def shown(self) -> Shown:
        """How they are shown."""
        file = self.folder / "shown.json"
        if not file.is_file():
            found = Shown(self.data.channels, self.data.resize, self.data.crop)
            artifacts.write_json(file, dataclasses.asdict(found))
        kept = json.loads(file.read_text())
        return Shown(kept["channels"], kept["resize"], tuple(kept["crop"]))

    def view(self, augment: Any, seed: int) -> View:
        """Return how a policy augments them ("auto" chooses by kind of image)."""
        height, width = self.shown.crop
        auto = default_policy(height=height, width=width, channels=self.shown.channels, classes=self.manifest.classes)
        return View(parse_policy(augment, auto=auto), size=self.shown.crop, seed=seed)

    def loader(self, view: View, **options: Any) -> Loader:
        """Return a loader, which decodes the images where no earlier run has."""
        return Loader(self.manifest, self.data.pixels, view, **options)

    @property
    def labelled(self) -> np.ndarray:
        """The rows of all splits that carry a label."""
        return np.flatnonzero(self.manifest.label != UNLABELLED)
