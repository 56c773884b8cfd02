"""Classify single images with a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import progress
from potstill.data.pixels import one_image
from potstill.data.views import CLEAN
from potstill.errors import DataError, ModelError
from potstill.evaluation import metrics
from potstill.model_files.open import find
from potstill.models import input_facts
from potstill.training.predict import Model


def predict(
    model: str, images: Sequence[Path], *, weights: str | Path | None, classes: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return for each image the class, its probability and the five best."""
    found = trained(model, weights=weights, classes=classes)
    missing = [str(image) for image in images if not image.is_file()]
    if missing:
        raise DataError(*(f"There is no image at {name}." for name in missing))
    return [_predict(found, image) for image in images]


def trained(model: str, *, weights: str | Path | None, classes: Sequence[str] | None = None) -> Model:
    """Return the model at a path, or a name with its weights; raise `ModelError` where it is neither."""
    found = find(model)
    if found is None:
        if weights is None:
            raise ModelError(f"{model} names no trained model. Add --weights FILE, or give a folder or an .onnx file.")
        return input_facts.from_weights(model, Path(weights), classes=classes)
    if classes is not None:
        progress.note("--classes is ignored: the model carries the names of its classes.")
    return found


def ask_image(model: Model, image: Path) -> np.ndarray:
    """Return the logits [K] of a model for an image file."""
    card = model.card
    pixels = one_image(image, size=card.crop, resize=card.resize, channels=card.channels)
    from potstill.data.augment import parse_policy
    from potstill.data.views import View

    shown = View(parse_policy("none"), size=card.crop, seed=0)(pixels, np.zeros(1, np.int64), np.full(1, CLEAN))
    if isinstance(model, torch.nn.Module):
        model.eval()
    with torch.inference_mode():
        return model(shown).logits.numpy()[0]


def _predict(model: Model, image: Path) -> dict[str, Any]:
    card, probability = model.card, metrics.softmax(ask_image(model, image)[None])[0]
    best = np.argsort(-probability, kind="stable")[:5]
    return {
        "image": str(image),
        "class": card.classes[best[0]],
        "probability": round(float(probability[best[0]]), 4),
        "top": [{"class": card.classes[i], "probability": round(float(probability[i]), 4)} for i in best],
    }
