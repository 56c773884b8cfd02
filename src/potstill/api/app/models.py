"""The models of a run side by side: teacher, student and 8-bit student, and their answers to an image."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from potstill import artifacts
from potstill.data.decode import decode
from potstill.errors import UserError
from potstill.evaluation.metrics import softmax
from potstill.model_files.open import Opened, find
from potstill.report.runner.play import drawing
from potstill.stages.inference.images import pictures
from potstill.stages.inference.predict import logits_of

ROLES = {"Teacher": "teacher", "Student": "student.onnx", "Student in 8 bits": "student_int8.onnx"}
"""Titles, and where the models are in the folder of a run."""

Answers = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""By title: the classes, and the logits [K] of an image."""


def runs_in(folder: Path) -> list[Path]:
    """Return the finished runs of `distill` in a folder, the newest first."""
    finished = [file.parent for file in folder.glob("*/student.onnx") if (file.parent / "summary.json").is_file()]
    return sorted(finished, key=lambda run: (run / "summary.json").stat().st_mtime, reverse=True)


def answers(run: Path, pixels: np.ndarray) -> Answers:
    """Return what the models of a run, those that it holds, answer to an image uint8 [H, W, 1 or 3]."""
    found = {}
    for title, name in ROLES.items():
        path = run / name
        kept = path / "model.safetensors" if path.is_dir() else path
        if kept.is_file():
            model = _opened(str(path), kept.stat().st_mtime)
            found[title] = tuple(model.card.classes), logits_of(model, pictures(pixels)[0])[0]
    return found


@functools.lru_cache(maxsize=12)
def _opened(path: str, changed: float) -> Opened:
    """Return a model; `changed` is when its file was, so that a file that is written again is read again."""
    model = find(path, threads=1)
    assert model is not None, path
    return model


def probabilities(found: Answers, temperature: float) -> dict[str, dict[str, float]]:
    """Return by title the probability of each class at a temperature."""
    return {
        title: dict(zip(classes, softmax(logits[None], temperature)[0].tolist(), strict=True))
        for title, (classes, logits) in found.items()
    }


def pixels_of(file: str | Path) -> np.ndarray:
    """Return the pixels of a file that was dropped; raise `DataError` with a sentence if it is no image."""
    return decode(file, name=Path(file).name)


def pixels_drawn(run: Path, ink: np.ndarray) -> np.ndarray:
    """Return a drawing, uint8 [H, W] of white strokes on black, as the images of a run are drawn.

    That is: as large, centred by its mass, and dark on light where they are. Raises `UserError` if nothing is drawn.
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    if not len(rows):
        raise UserError("Nothing is drawn yet. Draw with the mouse or a finger.")
    how = drawing(_examples(run)) or {"dark": True, "share": 0.75}
    side = len(ink)
    inner = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = how["share"] * side / max(inner.shape)
    size = [max(1, round(scale * length)) for length in inner.shape]
    small = np.asarray(Image.fromarray(inner).resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float64)
    centre = [(small.sum(1 - axis) * np.arange(size[axis])).sum() / small.sum() for axis in (0, 1)]
    paper = Image.new("L", (side, side))
    place = [round(side / 2 - middle - 0.5) for middle in centre]
    paper.paste(Image.fromarray(small.astype(np.uint8)), (place[1], place[0]))
    values = np.asarray(paper)
    return (values if how["dark"] else 255 - values)[:, :, None]


def _examples(run: Path) -> list[str]:
    file = run / "examples.json"
    samples = artifacts.read_object(file).get("samples", []) if file.is_file() else []
    return [one["image"] for one in samples if one["image"]]
