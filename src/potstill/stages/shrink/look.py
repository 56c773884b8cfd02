"""The look at the data before anything else: sizes, classes, labels, splits, and images that belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill import progress
from potstill.data.checks.grouping import propose_groups
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.stages import dataset
from potstill.stages.recipe import DataConfig
from potstill.words import argument, plural

SAMPLED = 64  # images whose size is read
FEW = 20  # validation images below which no choice between candidates is possible


@dataclass(frozen=True)
class Look:
    """What the images are. side: median of their short sides, in pixels; pixels: values of one image."""

    manifest: Manifest
    side: int
    pixels: int
    proposal: str | None

    @property
    def validation(self) -> int:
        """The number of labelled validation images."""
        return len(self.manifest.rows("validation", labelled=True))

    def to_json(self) -> dict[str, Any]:
        """Return the facts for the summary."""
        label = self.manifest.label[self.manifest.rows("train", labelled=True)]
        counts = np.bincount(label, minlength=len(self.manifest.classes))
        return {
            "side": self.side,
            "labels": dict(zip(self.manifest.classes, counts.tolist(), strict=True)),
            "group": self.proposal,
        }


def look(config: DataConfig) -> Look:
    """Return what the images are; note images that belong together and are not grouped.

    Raises `DataError` if a choice on so few validation images would mean nothing.
    """
    manifest = dataset.read(config)
    rows = np.linspace(0, len(manifest) - 1, min(len(manifest), SAMPLED)).astype(int)
    shapes = [manifest.image(int(row)).shape for row in rows]
    side = int(np.median([min(height, width) for height, width, _ in shapes]))
    pixels = int(np.median([height * width * channels for height, width, channels in shapes]))
    found = Look(manifest, side, pixels, _proposal(manifest))
    if found.validation < FEW:
        raise DataError(
            f"There are only {plural(found.validation, 'validation image')}: one of them is "
            f"{100 / max(found.validation, 1):.0f} points, so no choice between candidates is possible. Provide at "
            f"least {FEW}{_needed(config, found)}, or train one student: potstill distill "
            f"{argument(config.path)}"
        )
    return found


def _needed(config: DataConfig, found: Look) -> str:
    """Return how many images that is in all, where they are the share of all images that is held out."""
    if config.limit or not found.validation:
        return ""
    return f" (of these data about {math.ceil(len(found.manifest) * FEW / found.validation)} images in all)"


def _proposal(manifest: Manifest) -> str | None:
    proposal = propose_groups(manifest)
    if proposal is None:
        return None
    progress.note(
        f"{proposal.text} Unless they are kept together, all figures are too high. Run this command again with "
        f"{proposal.flag}"
    )
    return proposal.flag
