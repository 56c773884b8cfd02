"""Tables and a page of pseudo-labels for review, after a self-training or `potstill label`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from potstill.data.duplicates import Deduplicated
from potstill.stages.dataset import Data
from potstill.stages.selftrain import corrections
from potstill.stages.selftrain.page import write_page
from potstill.stages.selftrain.selection import USED, Selection

TABLE, TO_REVIEW, PAGE = "labels.csv", "to-review.csv", "labels.html"


def write_review(
    folder: Path,
    data: Data,
    rows: np.ndarray,
    probability: np.ndarray,
    disagreement: np.ndarray,
    *,
    to_review: int,
    selection: Selection | None = None,
    deduplicated: Deduplicated | None = None,
    choice: str = "",
) -> None:
    """Write labels.csv, to-review.csv and labels.html of `rows` into `folder`.

    probability: float [N, K]; disagreement: float [N], 0..1. to_review: images to propose for labelling by hand.
    selection: the images used for training; None is all of them.
    """
    selection = selection or _all(probability)
    deduplicated = deduplicated or Deduplicated(rows, np.zeros(len(rows), np.uint8))
    best = corrections.most_informative(probability, disagreement, to_review)
    for name, places in ((TABLE, np.arange(len(rows))), (TO_REVIEW, best)):
        corrections.write_table(folder / name, data.manifest, rows, selection, disagreement, places)
    write_page(folder / PAGE, data, rows, selection, best, deduplicated, choice)


def _all(probability: np.ndarray) -> Selection:
    state = np.full(len(probability), USED, np.uint8)
    return Selection(np.arange(len(probability)), state, probability.argmax(1), probability.max(1))
