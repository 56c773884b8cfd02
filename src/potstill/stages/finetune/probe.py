"""The probe: a linear classifier on stored features, with a penalty chosen by folds, in seconds.

Rows of one image (its clean self and its views) and images of one group lie in the same fold; otherwise the folds
would praise a probe for recognising photos.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from potstill import progress
from potstill.data.manifest import Manifest
from potstill.data.splits import folds as split_folds
from potstill.stages.finetune.features import Features
from potstill.stages.finetune.logistic import Linear, Scaling, fit, in_threads, loss_of

PENALTIES = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(1, -5.5, -0.5))
"""Strong to weak, so that each solution is a good start for the next."""

USUAL_PENALTY = 0.01  # where there are too few images for folds
PATIENCE = 3  # weaker penalties that may be worse before the search ends


@dataclass(frozen=True)
class Tried:
    """A penalty at a layer over all folds: mean cross-entropy, its standard error, accuracy in percent."""

    layer: str
    penalty: float
    loss: float
    error: float
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, rounded."""
        return {
            "layer": self.layer,
            "penalty": self.penalty,
            "loss": round(self.loss, 5),
            "loss_standard_error": round(self.error, 5),
            "accuracy": round(self.accuracy, 2),
        }


@dataclass(frozen=True)
class Probe:
    """A fitted head for the features of `layer` as they are (scaling is folded into it): weight [K, D], bias [K]."""

    layer: str
    head: Linear
    penalty: float
    tried: tuple[Tried, ...]
    seconds: float

    def logits(self, features: Features, rows: np.ndarray) -> np.ndarray:
        """Return float32 [N, K] for clean images."""
        return self.head(torch.from_numpy(features.of(rows, self.layer))).numpy()

    def to_json(self) -> dict[str, Any]:
        """Return what the summary says of it."""
        best = [min((t for t in self.tried if t.layer == layer), key=_loss) for layer in _layers(self.tried)]
        return {
            "layer": self.layer,
            "penalty": self.penalty,
            "seconds": round(self.seconds, 2),
            "layers": [tried.to_json() for tried in best],
            "penalties": [tried.to_json() for tried in self.tried if tried.layer == self.layer],
        }


def _loss(tried: Tried) -> float:
    return tried.loss


def _layers(tried: Sequence[Tried]) -> list[str]:
    return list(dict.fromkeys(t.layer for t in tried))


# What scipy's BLAS multiplies here is short: several threads of it would only wait for each other, at full speed.
@threadpool_limits.wrap(limits=1, user_api="blas")
def probe(features: Features, manifest: Manifest, *, penalty: float | None, folds: int, seed: int) -> Probe:
    """Return the best probe of the train split over the layers and, where `penalty` is None, over penalties.

    Layers and penalties are compared by the cross-entropy of clean held-out images.
    """
    began = time.monotonic()
    parts = _parts(manifest, folds, seed)
    asked = (penalty,) if penalty else PENALTIES
    tried: list[Tried] = []
    if len(parts) > 1 and (len(features.layers) > 1 or not penalty):
        with progress.task("choosing the probe", len(features.layers)) as shown:
            for layer in features.layers:
                tried += _search(features, manifest, layer, asked, parts)
                shown.advance()
    # Of two layers that are as good the later one: a map and its mean are one to the probe, but not to the network.
    best = min(tried, key=lambda t: (round(t.loss, 4), -features.layers.index(t.layer))) if tried else None
    layer, chosen = (best.layer, best.penalty) if best else (features.layers[-1], penalty or USUAL_PENALTY)
    x, label = _rows(features, manifest, manifest.rows("train", labelled=True), layer)
    head = fit_head(x, label, len(manifest.classes), chosen)
    return Probe(layer, head, chosen, tuple(tried), time.monotonic() - began)


def fit_head(x: Tensor, label: Tensor, classes: int, penalty: float) -> Linear:
    """Return the head for images float32 [N, V, D], each in several views, and label int64 [N]."""
    flat, repeated = x.flatten(0, 1), label.repeat_interleave(x.shape[1])
    scaling = Scaling.of(flat)
    return fit(scaling(flat), repeated, classes, penalty).unscaled(scaling)


def _rows(features: Features, manifest: Manifest, rows: np.ndarray, layer: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.views_of(rows, layer)), torch.from_numpy(manifest.label[rows])


def _parts(manifest: Manifest, count: int, seed: int) -> list[np.ndarray]:
    """Return the rows of each fold of the train split; fewer folds where a class has few images or groups."""
    train = manifest.rows("train", labelled=True)
    own = manifest.select(train)
    identity = own.digest if own.group is None else own.group
    fewest = min(len(np.unique(identity[own.label == k])) for k in np.unique(own.label))
    if fewest < 2:
        progress.note(
            f"A class has one image or group to train on, too few for folds: the probe's penalty is {USUAL_PENALTY}."
        )
        return [train]
    if fewest < count:
        progress.note(f"The smallest class has {fewest} images or groups to train on, so there are {fewest} folds.")
    return [train[part.rows("validation")] for part in split_folds(own, min(count, fewest), seed=seed)]


def _search(
    features: Features, manifest: Manifest, layer: str, penalties: Sequence[float], parts: Sequence[np.ndarray]
) -> list[Tried]:
    """Return what each penalty gave at a layer, strong to weak, until it only gets worse."""
    worlds = [_Fold(features, manifest, layer, parts, k) for k in range(len(parts))]
    found: list[Tried] = []
    for penalty in penalties:
        said = in_threads(lambda k, penalty=penalty: worlds[k].ask(penalty), len(worlds))
        loss, right = (np.concatenate(column) for column in zip(*said, strict=True))
        error = float(loss.std() / np.sqrt(len(loss)))
        found.append(Tried(layer, penalty, float(loss.mean()), error, 100 * float(right.mean())))
        if len(found) - 1 - min(range(len(found)), key=lambda i: found[i].loss) >= PATIENCE:
            break
    return found


class _Fold:
    """One fold: fitted on the views of the other parts, asked about the clean images of its own."""

    def __init__(
        self, features: Features, manifest: Manifest, layer: str, parts: Sequence[np.ndarray], held: int
    ) -> None:
        self._classes = len(manifest.classes)
        others = np.concatenate([part for number, part in enumerate(parts) if number != held])
        x, label = _rows(features, manifest, others, layer)
        self._scaling = Scaling.of(x.flatten(0, 1))
        self._x = self._scaling(x.flatten(0, 1))
        self._label = label.repeat_interleave(x.shape[1])
        self._asked = self._scaling(torch.from_numpy(features.of(parts[held], layer)))
        self._truth = torch.from_numpy(manifest.label[parts[held]])
        self._head: Linear | None = None

    def ask(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Fit at a penalty, beginning at the last solution; return loss and correctness of each held-out image."""
        self._head = fit(self._x, self._label, self._classes, penalty, start=self._head)
        return loss_of(self._head, self._asked, self._truth)
