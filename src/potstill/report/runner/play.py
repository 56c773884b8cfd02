"""The values of `blocks/play.html`: the shipped file as a program, and what the page needs to run it on photos."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from potstill import words
from potstill.data.squares import window_of
from potstill.model_files.onnx_input import CARD, REJECT, TEMPERATURE
from potstill.models.card import Card
from potstill.models.card_record import card_from_text
from potstill.report.runner.program import Unsupported
from potstill.words import argument

HERE = Path(__file__).parent
SCRIPTS = ("runner.js", "pixels.js", "play.js")
MOST_MACS = 250_000_000
"""Multiply-accumulates of one image that a page computes within about a second."""
MOST_BYTES = 1_900_000
"""Bytes of a program in base64, with which a page stays below 3 MB."""
ENOUGH = 20
"""Labelled photos from which on an accuracy is printed."""
FLAT = 0.9
"""Share of the pixels in corners near their median, from which on images count as drawings on a plain ground."""


def play(
    files: Sequence[Path], *, examples: Sequence[str] = (), accuracy: str = "", shown: str = ""
) -> dict[str, Any] | None:
    """Return the values of `blocks/play.html` for the first exported file that a page can run; None without files.

    files: in the order of preference; those that do not exist are left out. If none can be run, the values are a
        sentence that says why. examples: data URLs of images of the data: where they are drawings (one channel, on a
        plain ground), the page has an area to draw in. accuracy: of the first file on the test images, as
        text; it is not shown for another.
        shown: the folder of the files as printed in a command; their own folder if it is empty.
    """
    files = [file for file in files if file.is_file()]
    problems = []
    for file in files:
        try:
            model = _model(file)
        except Unsupported as error:
            problems.append(_problem("This page cannot run the network: it lacks {what}.", what=error))
            continue
        except _TooLarge as error:
            problems.append(error.args[0])
            continue
        ground = drawing(examples) if model["card"]["channels"] == 1 else None
        more = {"drawing": ground, "accuracy": accuracy if file == files[0] else "", "enough": ENOUGH}
        script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
        return {"problem": None, "file": file.name, "model": {**model, **more}, "script": script, **more}
    if not problems:
        return None
    return {"problem": problems[0], "file": argument(Path(shown) / files[0].name if shown else files[0])}


class _TooLarge(Exception):
    """A network that a page should not run, with the problem as `play` returns it."""


def _problem(text: str, **values: Any) -> dict[str, Any]:
    return {"text": text, "facts": {name: str(value) for name, value in values.items()}}


def _model(file: Path) -> dict[str, Any]:
    """Return what the page runs: the program, and the card as pixels.js needs it."""
    from potstill.report.runner.compiler import read_program

    metadata = {one.key: one.value for one in onnx.load(file).metadata_props}
    card = card_from_text(metadata[CARD], origin=f"The card inside {file}")
    program = read_program(file)
    if program.macs > MOST_MACS:
        text = "The network is too large for a page: {macs} million multiply-accumulates an image (at most {most})."
        raise _TooLarge(_problem(text, macs=f"{program.macs / 1e6:,.1f}", most=f"{MOST_MACS / 1e6:,.1f}"))
    made = program.to_json()
    if len(made["bytes"]) > MOST_BYTES:
        text = "The network is too large for a page: {size} of weights (at most {most})."
        size = {"size": words.size(3 * len(made["bytes"]) // 4), "most": words.size(3 * MOST_BYTES // 4)}
        raise _TooLarge(_problem(text, **size))
    return {
        "program": made,
        "card": preprocessing(card),
        "classes": list(card.classes),
        "temperature": float(metadata.get(TEMPERATURE, 1.0)),
        "threshold": float(metadata.get(REJECT, 0.0)),
    }


def preprocessing(card: Card) -> dict[str, Any]:
    """Return what pixels.js needs to know of a card."""
    window = window_of(card.crop, card.resize, card.fit)
    return {"fit": card.fit, "window": window, "crop": card.crop, "size": card.size, "channels": card.channels}


def drawing(examples: Sequence[str]) -> dict[str, Any] | None:
    """Return how images of the data are drawn: on a dark ground or not, the larger side's share of the image, and the
    width of strokes; None where they are no drawings."""
    images = [_grey(url) for url in examples]
    corners = np.concatenate([_corners(one) for one in images or [_BLANK]])
    ground = np.median(corners)
    if not images or (np.abs(corners - ground) < 40).mean() < FLAT:
        return None
    inks = [np.abs(one - ground) > 100 for one in images]
    shares = [max(_extent(ink.any(axis)) / ink.shape[1 - axis] for axis in (0, 1)) for ink in inks]
    strokes = [min(_run_length(ink), _run_length(ink.T)) for ink in inks]
    share, stroke = float(np.median(shares)), min(0.14, max(0.05, float(np.median(strokes))))
    return {"dark": bool(ground < 128), "share": round(share, 3), "stroke": round(stroke, 3)}


_BLANK = np.zeros((1, 1))


def _corners(image: np.ndarray) -> np.ndarray:
    """Return the pixels of the four corners, an eighth of each side."""
    rows, columns = (np.arange(side) for side in image.shape)
    near = [np.minimum(places, places[::-1]) < max(1, len(places) // 8) for places in (rows, columns)]
    return image[np.ix_(*near)].ravel()


def _extent(used: np.ndarray) -> int:
    places = np.flatnonzero(used)
    return int(places[-1] - places[0] + 1) if len(places) else 0


def _run_length(ink: np.ndarray) -> float:
    """Return the mean length of the runs of ink along the rows, as a share of their length."""
    begins = np.diff(ink.astype(int), axis=1, prepend=0) > 0
    return float(ink.sum() / max(1, begins.sum()) / ink.shape[1])


def _grey(url: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("L"), np.float64)
