"""The images of a self-training: labelled images and the pool in one manifest.

A duplicate of a test image in the pool would be used for training and inflate the test accuracy; `deduplicate` excludes
such images before any model is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from potstill import progress
from potstill.data.formats import list_images
from potstill.data.formats.assemble import manifest_of_listing
from potstill.data.formats.files import scan
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Files
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest, Source
from potstill.data.splits import hold_out, keep_labels
from potstill.errors import DataError
from potstill.stages import dataset
from potstill.stages.images_record import READERS, read_images
from potstill.stages.selftrain.settings import SelftrainConfig


class Joined:
    """A `Source` over several parts; row r is row `place[r]` of part `part[r]`."""

    def __init__(self, parts: Sequence[Source], part: np.ndarray, place: np.ndarray) -> None:
        self.parts, self._part, self._place = parts, part, place
        self.names: Sequence[str] = [parts[p].names[i] for p, i in zip(part.tolist(), place.tolist(), strict=True)]

    @classmethod
    def of(cls, *parts: Source) -> Joined:
        """Return the rows of all parts, one part after the other."""
        sizes = [len(part.names) for part in parts]
        return cls(parts, np.repeat(np.arange(len(parts)), sizes), np.concatenate([np.arange(n) for n in sizes]))

    def image(self, row: int) -> np.ndarray:
        return self.parts[self._part[row]].image(int(self._place[row]))

    def digest(self, row: int) -> bytes:
        return self.parts[self._part[row]].digest(int(self._place[row]))

    def only(self, rows: Sequence[int]) -> Joined:
        part, place = self._part[list(rows)], self._place[list(rows)]
        rows_by_part = [np.flatnonzero(part == number) for number in range(len(self.parts))]
        renumbered = np.zeros_like(place)
        for chosen in rows_by_part:
            renumbered[chosen] = np.arange(len(chosen))
        kept = [p.only(place[chosen].tolist()) for p, chosen in zip(self.parts, rows_by_part, strict=True)]
        return Joined(kept, part, renumbered)


def read(config: SelftrainConfig) -> Manifest:
    """Return labelled and unlabelled images as one manifest; the pool is its unlabelled train rows.

    Raises `DataError` if there is no pool, or all its images are among the labelled ones.
    """
    manifest = dataset.read(config.data)
    if config.labels is not None:
        manifest = _few_labels(manifest, config, config.labels)
    if config.unlabelled is not None:
        pool = read_images(POOL, read_pool, config.unlabelled, group=config.data.group)
        _refuse_the_same(manifest, pool, config)
        manifest = joined(manifest, pool)
    if not len(manifest.rows("train", labelled=False)):
        raise DataError(
            f"{config.data.path} has no unlabelled images, which self-training needs. Give a folder of them: "
            "--unlabelled DIR."
        )
    return manifest


def _few_labels(manifest: Manifest, config: SelftrainConfig, count: int) -> Manifest:
    """Return the manifest with `count` labels in total, a fraction of them for validation."""
    merged = np.where(manifest.split == SPLITS.index("validation"), SPLITS.index("train"), manifest.split)
    few = keep_labels(manifest.with_split(merged.astype(np.uint8)), count, seed=config.seed)
    few = hold_out(few, split="validation", fraction=config.data.validation, seed=config.seed)
    held = len(few.rows("validation", labelled=True))
    progress.note(f"Using {count} labels: {count - held} for training and {held} for validation.")
    return few


def read_pool(path: str, *, group: str | None = None) -> Manifest:
    """Return the images at `path` as unlabelled, ignoring folder names; raise `DataError` if there are none."""
    try:
        pool = _read_pool(path, group)
    except PermissionError as error:
        raise DataError(
            f"The unlabelled images at {path} cannot be read ({error.strerror}: {error.filename}). Change the "
            "permissions, or give another folder."
        ) from None
    except DataError as error:
        raise DataError(*[f"The unlabelled images: {problem}" for problem in error.problems]) from None
    if (pool.label != UNLABELLED).any():
        progress.note(f"The labels in {path} are ignored, because --unlabelled names unlabelled images.")
    unlabelled = np.full(len(pool), UNLABELLED)
    return dataclasses.replace(pool, label=unlabelled, split=np.zeros(len(pool), np.uint8), classes=())


POOL = "unlabelled images"
READERS[POOL] = read_pool


def _read_pool(path: str, group: str | None) -> Manifest:
    place = Path(path).expanduser()
    if place.is_dir():
        folder, left = scan(place)
        if names := list(folder):
            listing = Listing(str(place), [Entry(name) for name in names], Files(place, names), (), left)
            return manifest_of_listing(listing, group=group)
    listed = list_images(path, allow_empty=True)
    if isinstance(listed, Manifest):
        return listed
    entries = [Entry(entry.name, group=entry.group) for entry in listed.entries]
    return manifest_of_listing(dataclasses.replace(listed, entries=entries, named=()), group=group)


def _refuse_the_same(manifest: Manifest, pool: Manifest, config: SelftrainConfig) -> None:
    new = ~np.isin(pool.digest, manifest.digest)
    if not new.any():
        raise DataError(
            f"All unlabelled images at {config.unlabelled} are also in {config.data.path}. Give a folder of other "
            "images with --unlabelled."
        )


def joined(manifest: Manifest, pool: Manifest) -> Manifest:
    """Return both as one manifest: first the rows of `manifest`, then the pool, unlabelled and in train."""
    one, two = (np.arange(len(m)) if m.kept is None else m.kept for m in (manifest, pool))
    group = None
    if manifest.group is not None:
        other = np.arange(len(pool)) - 2**62 if pool.group is None else pool.group
        group = np.concatenate([manifest.group, other])
    return Manifest(
        source=Joined.of(manifest.source, pool.source),
        label=np.concatenate([manifest.label, pool.label]),
        split=np.concatenate([manifest.split, pool.split]),
        classes=manifest.classes,
        digest=np.concatenate([manifest.digest, pool.digest]),
        root=manifest.root,
        group=group,
        kept=np.concatenate([one, two + len(manifest.source.names)]),
    )
