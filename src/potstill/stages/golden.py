"""Golden images of a data set: originals of the validation split, with what the exported files say of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from potstill.exporters.golden import GoldenImage, write_golden
from potstill.model_files.open import temperature_of
from potstill.model_files.runtimes import open_exported
from potstill.models.outputs import resized
from potstill.stages.dataset import Data

IMAGES = 8


def golden_of_validation(files: Sequence[Path], data: Data, folder: Path, *, count: int = IMAGES) -> None:
    """Write `count` original images of the validation split, of as many classes as possible, with the probabilities
    that each of the files gives them; nothing without such images.

    files: of one network, so that they have one temperature and one input size.
    """
    manifest = data.manifest
    rows = manifest.rows("validation", labelled=True)
    turn = [int((manifest.label[rows[:position]] == manifest.label[row]).sum()) for position, row in enumerate(rows)]
    rows = rows[np.argsort(turn, kind="stable")[:count]]
    if not len(rows):
        return
    models = {file.name: open_exported(file) for file in files}
    first = next(iter(models.values()))
    inputs = resized(data.loader().clean_batch(rows).image, channels=first.card.channels, size=first.card.size)
    images = [GoldenImage.of(manifest, int(row)) for row in rows]
    write_golden(folder, images, inputs.clamp(0, 1), models, temperature=temperature_of(first))
