"""Features of a frozen network, computed once: for all images, and for augmented views of the training images.

They are cached under a key of network, images, normalisation, views and layers, so another probe, with another penalty
or other labels, needs no forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill import artifacts, progress
from potstill.data.views import CLEAN, View
from potstill.models.freeze import bits
from potstill.models.hooks import as_vector
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.taps import resolve
from potstill.models.outputs import Classifier, Outputs, bare
from potstill.stages.finetune.lazy_data import Images
from potstill.teachers.prediction_store import Store
from potstill.training import devices, predict

DEPTHS = ("stage:1/4", "stage:2/4", "stage:3/4", "pooled")
"""The layers that `auto` tries: three depths, and the input of the head."""

BATCH = 64  # photos whose feature maps fit into memory
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Features:
    """Stored vectors: of every labelled image (clean, float32) and of views of the train split (float16)."""

    layers: tuple[str, ...]
    clean: Store
    views: Store | None

    def of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        """Return the features of images without augmentation, float32 [N, D]."""
        return self.clean.read(rows, np.zeros_like(rows))[layer]

    def views_of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        """Return float32 [N, 1 + V, D]: each image without augmentation, then its V augmented views."""
        parts = [self.of(rows, layer)]
        if self.views is not None:
            numbers = range(self.views.views)
            parts += [self.views.read(rows, np.full_like(rows, v))[layer].astype(np.float32) for v in numbers]
        return np.stack(parts, 1)


def layers_of(classifier: Classifier, chosen: str) -> tuple[str, ...]:
    """Return the layers to extract: the named one, or for "auto" several depths without repetition."""
    if chosen != "auto":
        resolve(classifier, [chosen])
        return (chosen,)
    taps = resolve(classifier, DEPTHS)
    first_of = {tap.path: tap.name for tap in reversed(taps)}
    return tuple(tap.name for tap in taps if first_of[tap.path] == tap.name)


def extract(
    classifier: Classifier,
    images: Images,
    layers: Sequence[str],
    *,
    views: int,
    augment: Any,
    seed: int,
    precision: str = "auto",
) -> Features:
    """Return the features, computing those that are not stored yet.

    views: number of augmented views of each training image. precision: for the views; images without augmentation are
    computed in fp32, so that the accuracy of the probe is that of the saved model.
    """
    source = {"network": _identity(classifier), "images": images.fingerprint, "layers": list(layers)}
    view = images.view(augment, seed)
    clean = _store(images, images.labelled, 1, {**source, "precision": "fp32"})
    augmented = None
    if views and view.policy.operations:
        precision = predict.resolve_precision(precision, devices.device(), classifier)
        facts = {**source, "precision": precision, "policy": view.fingerprint}
        augmented = _store(images, images.manifest.rows("train", labelled=True), views, facts)
    elif views:
        progress.note("Without augmentation all views are equal: the probe is fitted on one view of each image.")
    tapped = classifier.replace(taps=resolve(classifier, layers))
    if not clean.complete:
        _fill(clean, tapped, images, view, clean=True, precision="fp32")
    if augmented is not None and not augmented.complete:
        _fill(augmented, tapped, images, view, clean=False, precision=precision)
    return Features(tuple(layers), clean, augmented)


def _identity(classifier: Classifier) -> str:
    """Return a fingerprint of what features depend on: weights below the head, architecture, normalisation, size."""
    card = classifier.card
    facts = [card.model, card.options, card.mean, card.std, card.size]
    return artifacts.fingerprint([*facts, bits(bare(classifier.network), but=trace(classifier).head.path)])


def _store(images: Images, rows: np.ndarray, views: int, source: dict[str, Any]) -> Store:
    name = artifacts.fingerprint({**source, "rows": rows.tolist(), "views": views})[:16]
    return Store(images.folder / name, rows, views, source)


def _fill(store: Store, tapped: Classifier, images: Images, view: View, *, clean: bool, precision: str) -> None:
    on = devices.device()
    loader, model = images.loader(view, device=on), _fast(tapped.to(on))
    missing = store.missing()
    total = sum(len(store.part_rows(part)) for _, part in missing)
    with progress.task("Computing features" if clean else "Computing features of augmented views", total) as task:
        for number, part in missing:
            rows = store.part_rows(part)
            chunks = np.array_split(rows, -(-len(rows) // BATCH))
            batches = (loader.batch(c, np.full(len(c), CLEAN if clean else number)) for c in chunks)
            vectors = []
            for batch, outputs in predict.predict(model, batches, precision=precision):
                vectors.append(_vectors(outputs, exact=clean))
                task.advance(len(batch.index))
            store.write(number, part, {layer: np.concatenate([v[layer] for v in vectors]) for layer in vectors[0]})
    store.close()


def _fast(classifier: Classifier) -> predict.Model:
    """Return the classifier with channels_last inputs, the fastest memory format of convolutions."""
    classifier.eval()
    return lambda image: classifier(image.contiguous(memory_format=torch.channels_last))


def _vectors(outputs: Outputs, *, exact: bool) -> dict[str, np.ndarray]:
    def stored(features: Tensor) -> np.ndarray:
        vector = as_vector(features).float()
        return (vector if exact else vector.clamp(-LARGEST_HALF, LARGEST_HALF).half()).cpu().numpy()

    return {layer: stored(features) for layer, features in outputs.features.items()}
