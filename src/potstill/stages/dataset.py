"""Preparation of a data set for training: manifest, splits, pixels, views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from potstill import distributed, progress
from potstill.data.augment import default_policy, parse_policy
from potstill.data.formats import from_arrays, read_manifest
from potstill.data.formats.rules import how_to_label
from potstill.data.loader import Loader
from potstill.data.manifest import SPLITS, Manifest
from potstill.data.pixels import Pixels, load_pixels
from potstill.data.splits import hold_out, limit
from potstill.data.views import View
from potstill.errors import ConfigError, DataError
from potstill.models import zoo
from potstill.models.card import Card, Fit
from potstill.models.outputs import Classifier
from potstill.stages.images_record import read_labelled, record_splits
from potstill.stages.recipe import DataConfig
from potstill.stages.unlabelled import with_new_images
from potstill.words import plural

PHOTO_SIZE = 128  # pixels per side, if neither the recipe nor a model defines it
CROP = 0.875  # fraction of the short side that the centre crop keeps


@dataclass(frozen=True)
class Data:
    """A manifest with train, validation and test splits, its pixels, and the crop, resize and fit of models.

    photos: the settings from which larger pixels of the same photos are decoded; None for images of one native size.
    """

    manifest: Manifest
    pixels: Pixels
    crop: tuple[int, int]
    resize: int
    fit: Fit = "crop"
    photos: DataConfig | None = None

    def for_input_of(self, card: Card) -> Data:
        """Return the same photos decoded for a model with a larger input, which sees the same crops of them."""
        side = max(card.crop)
        if self.photos is None or side <= max(self.crop):
            return self
        return prepare(self.photos.model_copy(update={"size": side}), manifest=self.manifest)

    @property
    def channels(self) -> int:
        """1 for greyscale, 3 for colour."""
        return self.pixels.shape[1]

    def model(
        self,
        name: str,
        *,
        weights: str | Path | None = None,
        new_head: bool = False,
        options: Mapping[str, Any] | None = None,
        size: int | None = None,
        seed: int = 0,
    ) -> Classifier:
        """Return a model for these images: built-in ones have their size and channels, others keep their own.

        new_head: the head of the weights may have another number of classes. size: another input size, pixels a side.
        """
        builtin = name.startswith("builtin:")
        made = zoo.create(
            name,
            classes=self.manifest.classes,
            size=(size, size) if size else self.crop if builtin else None,
            channels=self.channels if builtin else None,
            weights=weights,
            new_head=new_head,
            options=options,
            seed=seed,
        )
        return self.shown_to(made)

    def shown_to(self, model: Classifier) -> Classifier:
        """Return a model whose card has the preprocessing of these images."""
        return model.with_card(model.card.replace(resize=self.resize, crop=self.crop, fit=self.fit))

    def loader(
        self,
        *,
        augment: Any = "none",
        seed: int = 0,
        device: torch.device | str = "cpu",
        mix: str | None = None,
        mix_alpha: float = 0.2,
    ) -> Loader:
        """Return a loader of views augmented by the policy `augment` ("auto" chooses by kind of image)."""
        height, width = self.crop
        auto = default_policy(height=height, width=width, channels=self.channels, classes=self.manifest.classes)
        view = View(parse_policy(augment, auto=auto), size=self.crop, seed=seed)
        return Loader(self.manifest, self.pixels, view, device=device, mix=mix, mix_alpha=mix_alpha)

    def facts(self, path: str) -> dict[str, Any]:
        """Return the data's part of the summary."""
        return facts_of(self.manifest, path, self.channels, self.crop)


def facts_of(manifest: Manifest, path: str, channels: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return the data's part of the summary. size: (height, width) as models are shown the images."""
    counts = {split: manifest.label[manifest.rows(split, labelled=True)] for split in SPLITS}
    each = {split: np.bincount(label, minlength=len(manifest.classes)).tolist() for split, label in counts.items()}
    return {
        "source": path,
        "fingerprint": manifest.fingerprint,
        "classes": list(manifest.classes),
        "splits": {split: len(manifest.rows(split)) for split in SPLITS},
        "counts": {name: [each[split][k] for split in SPLITS] for k, name in enumerate(manifest.classes)},
        "image": {"channels": channels, "height": size[0], "width": size[1]},
    }


def unsplit(config: DataConfig) -> Manifest:
    """Return the manifest of a recipe's data, with the splits that it has itself."""
    if config.path == "digits":
        return digits()
    return read_labelled(config.path, group=config.group, allow_empty=config.allow_empty)


def read(config: DataConfig) -> Manifest:
    """Return the manifest of a recipe's data, with a validation and a test split, and its unlabelled images."""
    manifest = unsplit(config)
    if not len(manifest.rows("train", labelled=True)):
        raise DataError(
            f"{config.path} has no labelled images. Training needs them: {how_to_label(config.path)} Then type the "
            "command again."
        )
    return record_splits(with_new_images(_with_splits(manifest, config), config))


def _with_splits(manifest: Manifest, config: DataConfig) -> Manifest:
    """Return the manifest with a test and a validation split and at most `config.limit` images; note what was held out.

    Where the data have validation images and no test images, half of the former become the test split.
    """
    origin = ""
    manifest = _without_unlabelled(manifest, config)
    if not len(manifest.rows("test")):
        origin = config.test_from or ("val" if len(manifest.rows("validation", labelled=True)) else "train")
        if origin == "val" and not len(manifest.rows("validation", labelled=True)):
            raise ConfigError(f"--test-from val: {config.path} has no validation images. Use --test-from train.")
        if origin != "none":
            source, fraction = ("validation", 0.5) if origin == "val" else ("train", config.test)
            manifest = hold_out(manifest, split="test", fraction=fraction, seed=config.seed, source=source)
    if not len(manifest.rows("validation")):
        manifest = hold_out(manifest, split="validation", fraction=config.validation, seed=config.seed)
    manifest = limit(manifest, config.limit, seed=config.seed) if config.limit else manifest
    if origin == "none":
        rows = manifest.rows("validation")
        manifest = manifest.select(np.concatenate([np.arange(len(manifest)), rows]))
        split = manifest.split.copy()
        split[-len(rows) :] = SPLITS.index("test")
        manifest = manifest.with_split(split)
    if origin:
        progress.note(_held_out(manifest, origin))
    return manifest


def _without_unlabelled(manifest: Manifest, config: DataConfig) -> Manifest:
    """Return the manifest without a validation or test split that has no labelled image; note what was left out."""
    for split in ("validation", "test"):
        rows = manifest.rows(split)
        if len(rows) and not len(manifest.rows(split, labelled=True)):
            progress.note(
                f"{config.path}: the {plural(len(rows), 'image')} of its {split} split have no labels, so nothing can "
                "be measured on them: left out."
            )
            manifest = manifest.select(np.setdiff1d(np.arange(len(manifest)), rows))
    return manifest


def _held_out(manifest: Manifest, origin: str) -> str:
    test, validation = (len(manifest.rows(split)) for split in ("test", "validation"))
    return {
        "train": f"No test split: holding out {plural(test, 'image')}; evaluated once, at the end.",
        "val": f"No test split: half of the validation images are used for testing, {test:,}, and {validation:,} for "
        "validation (data.test_from: train in a recipe takes them from the training images).",
        "none": f"No test split, as requested: the test figures are those of the {validation:,} validation images, by "
        "which epochs and settings are selected, so they are optimistic.",
    }[origin]


def read_to_measure(config: DataConfig) -> Manifest:
    """Return the manifest of images that are only measured. All are in the test split if they have no splits."""
    if config.path == "digits":
        return digits()
    manifest = read_manifest(config.path, group=config.group, allow_empty=True, trains=False)
    if len(manifest.rows("train")) < len(manifest):
        return manifest
    progress.note(
        f"{config.path} has no splits, and no record of the model names it: all its labelled images are measured. If "
        "some were used for training, the accuracy is too high."
    )
    return manifest.with_split(np.full(len(manifest), SPLITS.index("test"), np.uint8))


def prepare(config: DataConfig, *, manifest: Manifest | None = None, at_least: int = 0) -> Data:
    """Return the data of a recipe, decoded.

    at_least: the largest input size, in pixels, of models with a fixed input size.
    """
    manifest = manifest or read(config)
    size = max(config.size or (0 if at_least else PHOTO_SIZE), at_least)
    resize = round(size / CROP) if config.fit == "crop" else size
    shapes = _some_shapes(manifest)
    channels = max(shape[-1] for shape in shapes)
    with distributed.main_first():  # the other processes read decoded images from the cache
        pixels = load_pixels(manifest, size=(size, size), resize=resize, channels=channels, fit=config.fit, cache=None)
    if not (config.size or at_least or pixels.unchanged):
        _note_of_sizes(manifest.root, shapes)
    height, width = pixels.shape[-2:]
    if (height, width) == (resize, resize):
        return Data(manifest, pixels, (size, size), height, config.fit, config)
    return Data(manifest, pixels, (height, width), min(height, width), config.fit)


def _note_of_sizes(root: str, shapes: list[tuple[int, ...]]) -> None:
    """Note small images of one size that are resized like photos, because some others are among them."""
    size, count = Counter(shape[:2] for shape in shapes).most_common(1)[0]
    if max(size) < PHOTO_SIZE and 2 * count > len(shapes):
        progress.note(
            f"Most images of {root} are {size[1]} x {size[0]} pixels, but not all, so all are resized to "
            f"{PHOTO_SIZE} x {PHOTO_SIZE}, which takes longer. --size {max(size)} (or data.size) keeps them small."
        )


def channels_of(manifest: Manifest) -> int:
    """Return 3 if any of up to 64 evenly spaced images is in colour, else 1."""
    return max(shape[-1] for shape in _some_shapes(manifest))


def _some_shapes(manifest: Manifest) -> list[tuple[int, ...]]:
    """Return the shapes of up to 64 evenly spaced images."""
    rows = np.linspace(0, len(manifest) - 1, min(len(manifest), 64)).astype(int)
    return [manifest.image(int(row)).shape for row in rows]


def digits() -> Manifest:
    """Return scikit-learn's 1,797 digits of 8x8 pixels (UCI; Alpaydin, Kaynak 1998), 30 % of them for testing."""
    from sklearn.datasets import load_digits

    loaded = cast(Any, load_digits())  # a Bunch; the stubs say tuple, which `return_X_y` returns
    images = (loaded.images * (255 / 16)).round().astype(np.uint8)
    manifest = from_arrays(images, loaded.target, classes=[str(digit) for digit in range(10)], root="digits")
    return hold_out(manifest, split="test", fraction=0.3, seed=0)
