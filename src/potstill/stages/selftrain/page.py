"""The HTML page of pseudo-labels: thumbnails by class and confidence, excluded images, and images to label by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from potstill.artifacts import write_text
from potstill.data.duplicates import REASONS, Deduplicated
from potstill.stages.dataset import Data
from potstill.stages.selftrain.selection import STATES, USED, Selection

SIDE = 64  # pixels of a thumbnail
PER_ROW = 12
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
    """Write the page, which needs no network connection and no other file."""
    classes = data.manifest.classes
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html")

    def shown(places: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "image": thumbnail(data, int(pool[i])),
                "text": f"{classes[selection.predicted[i]]} {100 * selection.confidence[i]:.0f} %",
                "name": data.manifest.name(int(pool[i])),
            }
            for i in places.tolist()
        ]

    groups = [
        (name, [(level, shown(_at(selection, k, where))) for level, where in LEVELS]) for k, name in enumerate(classes)
    ]
    left = [(text, shown(_spread(np.flatnonzero(selection.state == n)))) for n, text in enumerate(STATES) if n != USED]
    copies = [(text, _plain(data, deduplicated.pool[deduplicated.reason == n])) for n, text in enumerate(REASONS) if n]
    page = template.render(groups=groups, left=left, copies=copies, to_review=shown(to_review), choice=choice)
    write_text(file, page)


def _at(selection: Selection, number: int, where: float) -> np.ndarray:
    """Return some used images of a class at a relative confidence: `where` is 0 for the highest, 1 for the lowest."""
    of_class = np.flatnonzero((selection.state == USED) & (selection.predicted == number))
    of_class = of_class[np.argsort(-selection.confidence[of_class], kind="stable")]
    start = round(where * max(len(of_class) - PER_ROW, 0))
    return of_class[start : start + PER_ROW]


def _spread(places: np.ndarray) -> np.ndarray:
    return places[np.unique(np.linspace(0, len(places) - 1, min(PER_ROW, len(places))).astype(int))]


def _plain(data: Data, rows: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"image": thumbnail(data, int(row)), "text": "", "name": data.manifest.name(int(row))} for row in _spread(rows)
    ]


def thumbnail(data: Data, row: int) -> str:
    """Return a decoded image as a JPEG data URL."""
    pixels = data.pixels.take(np.array([row]))[0].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resampling = Image.Resampling.NEAREST if max(image.size) < SIDE else Image.Resampling.BILINEAR
    buffer = io.BytesIO()
    image.resize((SIDE, SIDE), resampling).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
