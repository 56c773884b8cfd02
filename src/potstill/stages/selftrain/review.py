"""What people look at and mend: labels as tables and as a page, after a self-training and after `potstill label`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from potstill.stages.dataset import Data
from potstill.stages.selftrain import corrections
from potstill.stages.selftrain.deduplicate import Deduplicated
from potstill.stages.selftrain.page import write_page
from potstill.stages.selftrain.selection import USED, Selection

TABLE, WORTH, PAGE = "labels.csv", "worth-labelling.csv", "labels.html"


def write_review(
    folder: Path, data: Data, rows: np.ndarray, chance: np.ndarray, disagreement: np.ndarray, *, worth: int,
    selection: Selection | None = None, sieved: Deduplicated | None = None, choice: str = "",
) -> None:  # fmt: skip
    """Write labels.csv, worth-labelling.csv and labels.html of `rows` into `folder`.

    chance: float [N, K]; disagreement: float [N], 0..1. selection: who of them is learned from, all where it is None.
    """
    selection = selection or _all(chance)
    sieved = sieved or Deduplicated(rows, np.zeros(len(rows), np.uint8))
    best = corrections.worth_labelling(chance, disagreement, worth)
    for name, places in ((TABLE, np.arange(len(rows))), (WORTH, best)):
        corrections.write_table(folder / name, data.manifest, rows, selection, disagreement, places)
    write_page(folder / PAGE, data, rows, selection, best, sieved, choice)


def _all(chance: np.ndarray) -> Selection:
    state = np.full(len(chance), USED, np.uint8)
    return Selection(np.arange(len(chance)), state, chance.argmax(1), chance.max(1))
