"""Classification of images with a trained model."""

from __future__ import annotations

import contextlib
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
from potstill.stages.inference.images import Picture, in_batches, pictures
from potstill.stages.test_split import takes_photos

BATCH = 64
BEST = 5


def classify(model: Opened, images: Sequence[Picture]) -> list[dict[str, Any]]:
    """Return for each image the class, its probability 0..1 and the five most probable classes.

    Probabilities are calibrated where the model's file has a temperature. A model with a threshold (`Card.reject`)
    answers "unsure" where the probability is below it.

    Raises `DataError` that lists every image that cannot be read.
    """
    probability = metrics.softmax(logits_of(model, images), temperature_of(model))
    return [_described(model.card, image, one) for image, one in zip(images, probability, strict=True)]


def logits_of(model: Opened, images: Sequence[Picture]) -> np.ndarray:
    """Return the logits of a model for images, float32 [N, K], resized and cropped as defined by its card.

    A file that takes photos is given the photos as they are.
    """
    if not images:
        return np.empty((0, len(model.card.classes)), np.float32)
    parts = []
    with progress.task("Classifying images", len(images)) as task, _evaluating(model), torch.inference_mode():
        for some in in_batches(list(images), BATCH):
            decoded = _decoded(some)
            if takes_photos(model):
                parts.append(model.of_pixels(decoded))
            else:
                parts.append(model(_batch(model, decoded)).logits.float().cpu().numpy())
            task.advance(len(some))
    return np.concatenate(parts)


def _decoded(images: list[Picture]) -> list[np.ndarray]:
    """Return the pixels of each image; raise `DataError` that lists every one that cannot be read."""
    decoded, problems = [], []
    for image in images:
        try:
            decoded.append(image.pixels())
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    return decoded


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


def predict(
    model: str, images: Any, *, weights: str | Path | None = None, classes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return what `classify` returns for images in any form that `pictures` takes."""
    opened = trained(model, weights=weights, classes=classes)
    return classify(opened, pictures(images)[0])


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
