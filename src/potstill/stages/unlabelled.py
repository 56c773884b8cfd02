"""The images of `--unlabelled`: they join the training images, without labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from potstill import progress
from potstill.data import duplicates
from potstill.data.formats import list_images
from potstill.data.formats.assemble import manifest_of_listing
from potstill.data.formats.files import scan
from potstill.data.formats.listing import Entry, Listing
from potstill.data.formats.sources import Files
from potstill.data.joined import joined
from potstill.data.manifest import UNLABELLED, Manifest
from potstill.errors import DataError
from potstill.stages.images_record import READERS, read_images
from potstill.stages.recipe import DataConfig


def with_pool(manifest: Manifest, config: DataConfig) -> Manifest:
    """Return the images with those of `config.unlabelled`, if there are any, as unlabelled train rows.

    Raises `DataError` if they cannot be read, or all are among the labelled ones.
    """
    if config.unlabelled is None:
        return manifest
    pool = read_images(POOL, read_pool, config.unlabelled, group=config.group)
    _refuse_the_same(manifest, pool, config)
    return joined(manifest, pool)


def with_new_images(manifest: Manifest, config: DataConfig) -> Manifest:
    """Return the same without pool images that are duplicates of others.

    A duplicate of a test image would be used for training and inflate the test accuracy.
    """
    if config.unlabelled is None:
        return manifest
    whole = with_pool(manifest, config)
    found = duplicates.deduplicate(whole)
    progress.note(duplicates.describe(whole, found))
    return whole.select(np.setdiff1d(np.arange(len(whole)), found.pool[found.reason != duplicates.KEPT]))


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


def _refuse_the_same(manifest: Manifest, pool: Manifest, config: DataConfig) -> None:
    if np.isin(pool.digest, manifest.digest).all():
        raise DataError(
            f"All unlabelled images at {config.unlabelled} are also in {config.path}. Give a folder of other images "
            "with --unlabelled."
        )
