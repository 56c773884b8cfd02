"""The images of a self-training: labelled images and the pool in one manifest."""

from __future__ import annotations

import numpy as np

from potstill import progress
from potstill.data.manifest import SPLITS, Manifest
from potstill.data.splits import hold_out, keep_labels
from potstill.errors import DataError
from potstill.stages import dataset
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.unlabelled import with_pool


def read(config: SelftrainConfig) -> Manifest:
    """Return labelled and unlabelled images as one manifest; the pool is its unlabelled train rows.

    Duplicates are among them: the report lists why each was excluded. Raises `DataError` if there is no pool, or all
    its images are among the labelled ones.
    """
    manifest = dataset.read(config.data.model_copy(update={"unlabelled": None}))
    if config.labels is not None:
        manifest = _few_labels(manifest, config, config.labels)
    manifest = with_pool(manifest, config.data)
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
