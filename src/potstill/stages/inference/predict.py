"""Classification of images with a trained model."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import progress
from potstill.data.augment.operation import in_unit
from potstill.data.augment.place import centre_crop
from potstill.data.pixels import fitted
from potstill.errors import DataError, ModelError
from potstill.evaluation import metrics
from potstill.evaluation.rejection import UNSURE
from potstill.model_files.open import Opened, find, temperature_of
from potstill.models import input_facts
from potstill.models.card import Card
from potstill.models.outputs import Classifier
from potstill.stages.inference.images import Picture
from potstill.stages.test_split import takes_photos

BATCH = 64
BEST = 5


def classify(model: Opened, images: Sequence[Picture]) -> list[dict[str, Any]]:
    """Return for each image the class, its probability 0..1 and the five most probable classes.

    Probabilities are calibrated where the model's file has a temperature. A model with a threshold (`Card.reject`)
    answers "unsure" where the probability is below it. An image that cannot be read has its `problems` instead.
    """
    logits, unreadable = _of_readable(model, images)
    probability = iter(metrics.softmax(logits, temperature_of(model)))
    return [
        {"image": image.name, "problems": unreadable[row]}
        if row in unreadable
        else _described(model.card, image, next(probability))
        for row, image in enumerate(images)
    ]


def logits_of(model: Opened, images: Sequence[Picture]) -> np.ndarray:
    """Return the logits of a model for images, float32 [N, K], resized and cropped as defined by its card.

    A file that takes photos is given the photos as they are. Raises `DataError` that lists every unreadable image.
    """
    logits, unreadable = _of_readable(model, images)
    if unreadable:
        raise DataError(*itertools.chain.from_iterable(unreadable.values()))
    return logits


def _of_readable(model: Opened, images: Sequence[Picture]) -> tuple[np.ndarray, dict[int, list[str]]]:
    """Return the logits of the images that can be read, and by row the problems of the others."""
    parts, unreadable = [np.empty((0, len(model.card.classes)), np.float32)], {}
    if not images:
        return parts[0], unreadable
    with progress.task("Classifying images", len(images)) as task, _evaluating(model), torch.inference_mode():
        for start in range(0, len(images), BATCH):
            some, decoded = images[start : start + BATCH], []
            for row, image in enumerate(some, start):
                try:
                    decoded.append(image.pixels())
                except DataError as error:
                    unreadable[row] = error.problems
            if decoded and takes_photos(model):
                parts.append(model.of_pixels(decoded))
            elif decoded:
                parts.append(model(_batch(model, decoded)).logits.float().cpu().numpy())
            task.advance(len(some))
    return np.concatenate(parts), unreadable


def _batch(model: Opened, images: list[np.ndarray]) -> torch.Tensor:
    """Return float32 [B, C, H, W] in 0..1, on the model's device."""
    card = model.card
    shown = {"size": card.crop, "resize": card.resize, "channels": card.channels, "fit": card.fit}
    pixels = torch.from_numpy(np.stack([fitted(image, **shown) for image in images]))
    if isinstance(model, Classifier):
        pixels = pixels.to(next(model.parameters()).device)
    return in_unit(centre_crop(pixels, card.crop))


@contextlib.contextmanager
def _evaluating(model: Opened) -> Iterator[object]:
    """Put a network into eval mode, and restore its mode afterwards."""
    training = model if isinstance(model, Classifier) and model.training else None
    try:
        yield training.eval() if training else None
    finally:
        if training:
            training.train()


def trained(
    model: str, *, weights: str | Path | None, classes: Sequence[str] | None = None, flag: str = "--weights"
) -> Opened:
    """Return the model at a path, or of a name with its weights; raise `ModelError` if it is neither.

    flag: the option for these weights, or none if the model must be a folder or file.
    """
    opened = find(model)
    if opened is None:
        if weights is None:
            add = f"Add {flag} FILE, or give" if flag else "Give"
            raise ModelError(
                f"{model} is not a trained model: there is no such folder or file, and the name of an architecture "
                f"needs weights. {add} a run folder, a stage folder or an exported file."
            )
        return input_facts.from_weights(model, weights, classes=classes)
    if classes is not None:
        progress.note("--classes is ignored: the model contains the names of its classes.")
    return opened


def _described(card: Card, image: Picture, probability: np.ndarray) -> dict[str, Any]:
    best = np.argsort(-probability, kind="stable")[:BEST]
    unsure = bool(card.reject) and probability[best[0]] < card.reject["threshold"]
    return {
        "image": image.name,
        "class": UNSURE if unsure else card.classes[best[0]],
        "unsure": unsure,
        "probability": round(float(probability[best[0]]), 4),
        "top": [{"class": card.classes[i], "probability": round(float(probability[i]), 4)} for i in best],
    }
