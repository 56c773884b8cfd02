"""The linear probe: logistic regression on stored features, with a cross-validated penalty.

All views of an image, and all images of a group, are in the same fold; otherwise accuracy would be inflated by
recognising images seen in training.
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
from potstill.data.splits import separable
from potstill.objectives.balance import Balance, class_weight, prior
from potstill.stages.finetune.features import Features
from potstill.stages.finetune.logistic import Linear, Scaling, fit, in_threads, loss_of

PENALTIES = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(1, -5.5, -0.5))
"""Strong to weak, so that each solution is a good initial one for the next."""

DEFAULT_PENALTY = 0.01  # used if there are too few images for folds
PATIENCE = 3  # number of consecutive worse penalties after which the search ends


@dataclass(frozen=True)
class Trial:
    """A penalty and a layer over all folds: mean cross-entropy, its standard error, accuracy in percent."""

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
    """A fitted head for the unscaled features of `layer`: weight [K, D], bias [K]. trials: of the cross-validation."""

    layer: str
    head: Linear
    penalty: float
    trials: tuple[Trial, ...]
    seconds: float

    def logits(self, features: Features, rows: np.ndarray) -> np.ndarray:
        """Return the logits of images without augmentation, float32 [N, K]."""
        return self.head(torch.from_numpy(features.of(rows, self.layer))).numpy()

    def to_json(self) -> dict[str, Any]:
        """Return its part of the summary."""
        best = [min((t for t in self.trials if t.layer == layer), key=_loss) for layer in _layers(self.trials)]
        return {
            "layer": self.layer,
            "penalty": self.penalty,
            "seconds": round(self.seconds, 2),
            "layers": [trial.to_json() for trial in best],
            "penalties": [trial.to_json() for trial in self.trials if trial.layer == self.layer],
        }


def _loss(trial: Trial) -> float:
    return trial.loss


def _layers(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.layer for trial in trials))


# The BLAS operations of scipy's optimiser are on short vectors, where several threads only busy-wait.
@threadpool_limits.wrap(limits=1, user_api="blas")
def probe(
    features: Features,
    manifest: Manifest,
    *,
    penalty: float | None,
    folds: int,
    seed: int,
    balance: Balance = "none",
) -> Probe:
    """Return the best probe of the train split over the layers and, if `penalty` is None, over penalties.

    Layers and penalties are compared by the cross-entropy of held-out images without augmentation. balance: "sqrt" and
    "full" weigh the cross-entropy by the class, here too; "logit-adjust" subtracts the logarithm of the shares from the
    logits of the fitted probe, which for a convex loss stands for adding it in training (arXiv:2007.07314, 4.1).
    """
    counts = np.bincount(manifest.label[manifest.rows("train", labelled=True)], minlength=len(manifest.classes))
    weight = class_weight(counts, balance)
    began = time.monotonic()
    parts = _parts(manifest, folds, seed)
    penalties, last_layer = (penalty,) if penalty else PENALTIES, features.layers[-1]
    trials: list[Trial] = []
    if len(parts) > 1 and (len(features.layers) > 1 or not penalty):
        with progress.task("Cross-validating the probe", len(features.layers)) as task:
            for layer in features.layers:
                trials += _search(features, manifest, layer, penalties, parts, weight)
                task.advance()
    # The later of equally good layers: a map and its mean are equal for the probe, but not for the network.
    best = min(trials, key=lambda t: (round(t.loss, 4), -features.layers.index(t.layer))) if trials else None
    layer, chosen = (best.layer, best.penalty) if best else (last_layer, penalty or DEFAULT_PENALTY)
    x, label = _rows(features, manifest, manifest.rows("train", labelled=True), layer)
    head = fit_head(x, label, len(manifest.classes), chosen, weight)
    if balance == "logit-adjust":
        head = Linear(head.weight, head.bias - torch.from_numpy(np.log(prior(counts))).float())
    return Probe(layer, head, chosen, tuple(trials), time.monotonic() - began)


def fit_head(x: Tensor, label: Tensor, classes: int, penalty: float, class_weight: np.ndarray | None = None) -> Linear:
    """Return the head for features float32 [N, V, D] of V views per image, and label int64 [N]."""
    flat, repeated = x.flatten(0, 1), label.repeat_interleave(x.shape[1])
    scaling = Scaling.of(flat)
    return fit(scaling(flat), repeated, classes, penalty, class_weight=class_weight).unscaled(scaling)


def _rows(features: Features, manifest: Manifest, rows: np.ndarray, layer: str) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features.views_of(rows, layer)), torch.from_numpy(manifest.label[rows])


def _parts(manifest: Manifest, count: int, seed: int) -> list[np.ndarray]:
    """Return the rows of each fold of the train split; fewer folds if a class has few images or groups."""
    train = manifest.rows("train", labelled=True)
    own = manifest.select(train)
    fewest = min(separable(own).values())
    if fewest < 2:
        progress.note(
            "A class has only one training image or group, too few for cross-validation: the L2 penalty of the probe "
            f"is {DEFAULT_PENALTY}."
        )
        return [train]
    if fewest < count:
        progress.note(f"The smallest class has {fewest} training images or groups: using {fewest} folds.")
    return [train[part.rows("validation")] for part in split_folds(own, min(count, fewest), seed=seed)]


def _search(
    features: Features,
    manifest: Manifest,
    layer: str,
    penalties: Sequence[float],
    parts: Sequence[np.ndarray],
    weight: np.ndarray | None,
) -> list[Trial]:
    """Return a trial for each penalty at a layer, strong to weak, until `PATIENCE` of them are worse."""
    folds = [_Fold(features, manifest, layer, parts, k, weight) for k in range(len(parts))]
    trials: list[Trial] = []
    for penalty in penalties:
        results = in_threads(lambda k, penalty=penalty: folds[k].evaluate(penalty), len(folds))
        loss, correct = (np.concatenate(column) for column in zip(*results, strict=True))
        error = float(loss.std() / np.sqrt(len(loss)))
        trials.append(Trial(layer, penalty, float(loss.mean()), error, 100 * float(correct.mean())))
        if len(trials) - 1 - min(range(len(trials)), key=lambda i: trials[i].loss) >= PATIENCE:
            break
    return trials


class _Fold:
    """One fold: fitted on the views of the other parts, evaluated on its own images without augmentation."""

    def __init__(
        self,
        features: Features,
        manifest: Manifest,
        layer: str,
        parts: Sequence[np.ndarray],
        held: int,
        weight: np.ndarray | None,
    ) -> None:
        self._classes, self._weight = len(manifest.classes), weight
        others = np.concatenate([part for number, part in enumerate(parts) if number != held])
        x, label = _rows(features, manifest, others, layer)
        self._scaling = Scaling.of(x.flatten(0, 1))
        self._x = self._scaling(x.flatten(0, 1))
        self._label = label.repeat_interleave(x.shape[1])
        self._held_x = self._scaling(torch.from_numpy(features.of(parts[held], layer)))
        self._held_label = torch.from_numpy(manifest.label[parts[held]])
        self._head: Linear | None = None

    def evaluate(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Fit with a penalty, starting from the last solution; return loss and correctness of each held-out image."""
        self._head = fit(self._x, self._label, self._classes, penalty, start=self._head, class_weight=self._weight)
        loss, correct = loss_of(self._head, self._held_x, self._held_label)
        return (loss if self._weight is None else loss * self._weight[self._held_label.numpy()]), correct
