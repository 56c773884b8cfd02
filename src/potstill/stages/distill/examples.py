"""Some test images with the probabilities of teacher and student, at temperature 1 and at that of the recipe."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from potstill import artifacts
from potstill.evaluation.metrics import softmax
from potstill.stages.dataset import Data
from potstill.stages.recipe import Recipe

COUNT = 6


def write_examples(file: Path, data: Data, recipe: Recipe, logits: dict[str, np.ndarray]) -> None:
    """Write `examples.json`: test images for which the teacher's second probability is high, of several classes."""
    manifest, temperature = data.manifest, recipe.objective.temperature
    rows = manifest.rows("test", labelled=True)
    teacher, student = logits["teacher"], logits[f"student-{recipe.seed}"]
    examples = [
        {
            "image": as_png(data.pixels.take(rows[[chosen]]).numpy()[0]),
            "label": int(manifest.label[rows[chosen]]),
            **{
                f"{role}{suffix}": softmax(values[[chosen]], at)[0].round(5).tolist()
                for role, values in (("teacher", teacher), ("student", student))
                for suffix, at in (("", 1.0), ("_soft", temperature))
            },
        }
        for chosen in undecided(teacher, COUNT)
    ]
    value: dict[str, Any] = {"temperature": temperature, "classes": list(manifest.classes), "examples": examples}
    artifacts.write_json(file, value)


def undecided(logits: np.ndarray, count: int) -> list[int]:
    """Return images with a high second probability, each of another predicted class as long as there are any."""
    probability = np.sort(softmax(logits), 1)
    order = np.argsort(-probability[:, -2], kind="stable")
    chosen: list[int] = []
    seen: set[int] = set()
    for image in order:
        first = int(logits[image].argmax())
        if first not in seen:
            seen.add(first)
            chosen.append(int(image))
    return (chosen + [int(image) for image in order if int(image) not in chosen])[:count]


def as_png(pixels: np.ndarray) -> str:
    """Return uint8 [C, H, W] as a PNG data URL."""
    array = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
