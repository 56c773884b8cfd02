"""The images of a self-training: those with labels and the pool, as one manifest; and who of the pool may take part.

A copy of a test image in the pool would be learned with the teacher's label and asked for later, so whatever is equal
or nearly equal to a test or validation image is left out before anybody looks at it.
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
from potstill.stages.selftrain.settings import SelftrainConfig


class Joined:
    """A `Source` over several; row r is row `place[r]` of part `part[r]`."""

    def __init__(self, parts: Sequence[Source], part: np.ndarray, place: np.ndarray) -> None:
        self.parts, self._part, self._place = parts, part, place
        self.names = [parts[p].names[i] for p, i in zip(part.tolist(), place.tolist(), strict=True)]

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
        mine = [np.flatnonzero(part == number) for number in range(len(self.parts))]
        renumbered = np.zeros_like(place)
        for chosen in mine:
            renumbered[chosen] = np.arange(len(chosen))
        kept = [p.only(place[chosen].tolist()) for p, chosen in zip(self.parts, mine, strict=True)]
        return Joined(kept, part, renumbered)


def read(config: SelftrainConfig) -> Manifest:
    """Return labelled and unlabelled images as one manifest; the pool are its unlabelled train rows.

    Raises `DataError` where there is no pool, or it holds nothing that the labelled data does not.
    """
    manifest = dataset.read(config.data)
    if config.labels is not None:
        manifest = _few_labels(manifest, config)
    if config.unlabelled is not None:
        pool = read_pool(config.unlabelled, group=config.data.group)
        _refuse_the_same(manifest, pool, config)
        manifest = joined(manifest, pool)
    if not len(manifest.rows("train", labelled=False)):
        raise DataError(
            f"{config.data.path} has no images without labels, so there is nothing to learn from beside the labels. "
            "Give a folder of them: --unlabelled DIR."
        )
    return manifest


def _few_labels(manifest: Manifest, config: SelftrainConfig) -> Manifest:
    """Return the manifest with so many labels in all, of which a share is for validation."""
    merged = np.where(manifest.split == SPLITS.index("validation"), SPLITS.index("train"), manifest.split)
    few = keep_labels(manifest.with_split(merged.astype(np.uint8)), config.labels, seed=config.seed)
    few = hold_out(few, split="validation", fraction=config.data.validation, seed=config.seed)
    held = len(few.rows("validation", labelled=True))
    progress.note(f"Of the {config.labels} labels, {held} are held out for validation and the rest are learned from.")
    return few


def read_pool(path: str, *, group: str | None = None) -> Manifest:
    """Return the images at `path` without labels, whatever its folders are called; raise `DataError` where none are."""
    try:
        pool = _read_pool(Path(path).expanduser(), group)
    except PermissionError as error:
        raise DataError(
            f"The unlabelled images at {path} cannot be read ({error.strerror}: {error.filename})."
        ) from None
    except DataError as error:
        raise DataError(*[f"The unlabelled images: {problem}" for problem in error.problems]) from None
    if (pool.label != UNLABELLED).any():
        progress.note(f"The labels in {path} are not used: it was given as images without labels.")
    unlabelled = np.full(len(pool), UNLABELLED)
    return dataclasses.replace(pool, label=unlabelled, split=np.zeros(len(pool), np.uint8), classes=())


def _read_pool(path: Path, group: str | None) -> Manifest:
    if path.is_dir():
        folder, left = scan(path)
        if names := list(folder):
            listing = Listing(str(path), [Entry(name) for name in names], Files(path, names), (), left)
            return manifest_of_listing(listing, group=group)
    found = list_images(path, allow_empty=True)
    if isinstance(found, Manifest):
        return found
    entries = [Entry(entry.name, group=entry.group) for entry in found.entries]
    return manifest_of_listing(dataclasses.replace(found, entries=entries, named=()), group=group)


def _refuse_the_same(manifest: Manifest, pool: Manifest, config: SelftrainConfig) -> None:
    new = ~np.isin(pool.digest, manifest.digest)
    if not new.any():
        raise DataError(
            f"The unlabelled images at {config.unlabelled} are all among those of {config.data.path}, so there is "
            "nothing new to learn from. Give a folder of other images with --unlabelled."
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
