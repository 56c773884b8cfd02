"""The labels to look at: thumbnails by class and confidence, what was left out, and what is worth labelling by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from potstill.artifacts import write_text
from potstill.stages.dataset import Data
from potstill.stages.selftrain.deduplicate import REASONS, Deduplicated
from potstill.stages.selftrain.selection import STATES, USED, Selection

SIDE = 64  # pixels of a thumbnail
SHOWN = 12  # in a line
LEVELS = (("surest", 0.0), ("in the middle", 0.5), ("least sure", 1.0))


def write_page(
    file: Path, data: Data, pool: np.ndarray, selection: Selection, worth: np.ndarray, sieved: Deduplicated, choice: str
) -> None:
    """Write the page; it needs no network and no other file."""
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

    groups = [(name, [(level, shown(_at(selection, k, where))) for level, where in LEVELS]) for k, name in
              enumerate(classes)]  # fmt: skip
    left = [(text, shown(_spread(np.flatnonzero(selection.state == n)))) for n, text in enumerate(STATES) if n != USED]
    copies = [(text, _plain(data, sieved.pool[sieved.reason == n])) for n, text in enumerate(REASONS) if n]
    told = {"groups": groups, "left": left, "copies": copies, "worth": shown(worth), "choice": choice}
    write_text(file, template.render(**told))


def _at(selection: Selection, number: int, where: float) -> np.ndarray:
    """Return some used images of a class at a level of confidence, 0 the surest and 1 the least sure."""
    mine = np.flatnonzero((selection.state == USED) & (selection.predicted == number))
    mine = mine[np.argsort(-selection.confidence[mine], kind="stable")]
    start = round(where * max(len(mine) - SHOWN, 0))
    return mine[start : start + SHOWN]


def _spread(places: np.ndarray) -> np.ndarray:
    return places[np.unique(np.linspace(0, len(places) - 1, min(SHOWN, len(places))).astype(int))]


def _plain(data: Data, rows: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"image": thumbnail(data, int(row)), "text": "", "name": data.manifest.name(int(row))} for row in _spread(rows)
    ]


def thumbnail(data: Data, row: int) -> str:
    """Return a decoded image as the text of a data address."""
    pixels = data.pixels.take(np.array([row]))[0].permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    way = Image.Resampling.NEAREST if max(image.size) < SIDE else Image.Resampling.BILINEAR
    buffer = io.BytesIO()
    image.resize((SIDE, SIDE), way).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
