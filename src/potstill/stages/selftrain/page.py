"""What the page of predicted labels shows: some images of each class by confidence, and of those left out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from potstill.data.duplicates import REASONS, Deduplicated
from potstill.data.thumbnails import data_url, thumbnail
from potstill.report.labels import Photo, Row, write_labels
from potstill.stages.dataset import Data
from potstill.stages.selftrain.selection import STATES, USED, Selection

SIDE = 96  # pixels of a thumbnail
PER_ROW = 12
FEWEST = 3  # images of a row where there are many classes
IMAGES = 600  # of all classes together: with more, the page would exceed 3 MB
LEVELS = (("highest confidence", 0.0), ("medium confidence", 0.5), ("lowest confidence", 1.0))


def write_page(
    file: Path,
    data: Data,
    pool: np.ndarray,
    selection: Selection,
    to_review: np.ndarray,
    deduplicated: Deduplicated,
    choice: str,
) -> None:
    """Write the page of the predicted labels of `pool`, rows of the manifest."""
    classes = data.manifest.classes
    per_row = max(FEWEST, min(PER_ROW, IMAGES // (len(LEVELS) * len(classes))))

    def shown(places: np.ndarray) -> list[Photo]:
        sure = zip(selection.predicted[places].tolist(), selection.confidence[places].tolist(), strict=True)
        return _photos(data, pool[places], [f"{classes[label]} {100 * confidence:.0f} %" for label, confidence in sure])

    def rows(number: int) -> list[Row]:
        of_class = _used(selection, number)
        if len(of_class) <= per_row:
            return [("", shown(of_class))]
        return [(level, shown(_at(of_class, where, per_row))) for level, where in LEVELS]

    groups = [(name, rows(number)) for number, name in enumerate(classes)]
    left = [(text, np.flatnonzero(selection.state == n)) for n, text in enumerate(STATES) if n != USED]
    copies = [(text, deduplicated.pool[deduplicated.reason == n]) for n, text in enumerate(REASONS) if n]
    excluded: list[Row] = [(text, shown(_spread(places))) for text, places in left if len(places)]
    excluded += [(text, _photos(data, _spread(rows), [""] * PER_ROW)) for text, rows in copies if len(rows)]
    write_labels(
        file,
        name=Path(data.manifest.root).name or "the images",
        images=len(selection.predicted),
        choice=choice,
        to_review=shown(to_review),
        classes=groups,
        excluded=excluded,
    )


def _used(selection: Selection, number: int) -> np.ndarray:
    """Return the used images of a class, the most confident first."""
    of_class = np.flatnonzero((selection.state == USED) & (selection.predicted == number))
    return of_class[np.argsort(-selection.confidence[of_class], kind="stable")]


def _at(of_class: np.ndarray, where: float, count: int) -> np.ndarray:
    """Return some images of a class at a relative confidence: `where` is 0 for the highest, 1 for the lowest."""
    start = round(where * (len(of_class) - count))
    return of_class[start : start + count]


def _spread(places: np.ndarray) -> np.ndarray:
    return places[np.unique(np.linspace(0, len(places) - 1, min(PER_ROW, len(places))).astype(int))]


def _photos(data: Data, rows: np.ndarray, texts: Iterable[str]) -> list[Photo]:
    pixels = data.pixels.take(rows).permute(0, 2, 3, 1).numpy() if len(rows) else ()
    return [
        Photo(data_url(thumbnail(image, SIDE), "JPEG", quality=80), data.manifest.name(row), text)
        for image, row, text in zip(pixels, rows.tolist(), texts, strict=False)
    ]
