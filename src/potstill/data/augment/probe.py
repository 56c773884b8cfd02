"""Which augmentations preserve the labels of a data set? A linear probe is trained with each one and evaluated.

A flipped photo of a cat still shows a cat, a flipped 2 is not a digit; whether a rotation or a change of hue is
harmful depends on the classes. The probe is a logistic regression on pooled pixels and edge directions. Fitted on
clean *and* augmented images, its accuracy on clean held-out images falls if the augmentation makes one class look like
another, and rises otherwise. (Evaluating a probe fitted on clean images only with augmented images does not separate
the two cases: a shift by one pixel then seems as harmful as a flipped digit.)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from potstill.data.augment.policy import parse_policy
from potstill.data.draws import uniform
from potstill.data.manifest import Manifest
from potstill.data.pixels import Pixels
from potstill.data.views import CLEAN, View
from potstill.errors import DataError
from potstill.evaluation.statistics import BEATS, LOSES, compare
from potstill.progress import task

COLOUR: tuple[Any, ...] = ({"saturation": 0.5}, {"hue": 0.05}, {"hue": 0.5}, {"grayscale": 1})
CANDIDATES: tuple[Any, ...] = (
    *({"shift": 1}, {"shift": 2}, "pad-crop", {"random-resized-crop": 0.35}),
    *({"flip": 1}, {"flip-vertical": 1}, {"rotate": 10}, {"rotate": 30}, {"rotate": 180}, {"affine": {"scale": 0.2}}),
    *({"brightness": 0.3}, {"contrast": 0.3}, {"invert": 1}, {"erase": 1}),
    *COLOUR,
)
VERDICTS = {LOSES: "costs", BEATS: "helps"}
_CONFIDENCE = 0.99  # because many operations are compared
_CELLS = 7  # pooling regions per side
_DIRECTIONS = 8
_LARGEST = 64  # pixels per side at which edges are computed


@dataclass(frozen=True)
class Effect:
    """The effect of an operation on the accuracy of a probe on clean held-out images.

    accuracy: in percent. drop: points lost relative to the probe fitted on clean images only, with its 99 % interval.
    verdict: "costs" if the whole interval is above 0, "helps" if it is below, else "no difference seen".
    """

    operation: str
    accuracy: float
    drop: float
    interval: tuple[float, float]
    verdict: str


def probe_augment(
    manifest: Manifest,
    pixels: Pixels,
    *,
    size: tuple[int, int],
    operations: Sequence[Any] | None = None,
    limit: int = 3000,
    seed: int = 0,
) -> list[Effect]:
    """Return the effect of each operation, the most harmful first. The test split is not used.

    pixels: of the manifest. size: (height, width) of a view. operations: as in a recipe; by default those that apply
    to grey or colour images. limit: number of images that each probe is fitted on. Takes at most a minute.
    """
    if operations is None:
        operations = [spec for spec in CANDIDATES if pixels.shape[1] == 3 or spec not in COLOUR]
    policies = [parse_policy([spec]) for spec in operations]
    fitted, held = _halves(manifest, limit, seed)
    label = manifest.label

    def features(rows: np.ndarray, policy: Any = "none", number: int = CLEAN) -> np.ndarray:
        view = View(parse_policy(policy), size=size, seed=seed)
        parts = np.array_split(rows, len(rows) // 256 + 1)
        return np.concatenate([_features(view(pixels.take(p), p, np.full(len(p), number))) for p in parts])

    clean, held_out = features(fitted), features(held)
    before = _fit(clean, clean, label[fitted]).predict(held_out) == label[held]
    effects = []
    with task("Probing augmentations", len(policies)) as shown:
        for spec, policy in zip(operations, policies, strict=True):
            probe = _fit(clean, features(fitted, policy, 0), label[fitted])
            effects.append(_effect(_spelled(spec), probe.predict(held_out) == label[held], before, seed))
            shown.advance()
    return sorted(effects, key=lambda effect: -effect.drop)


def _halves(manifest: Manifest, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labelled rows to fit on and to evaluate on: train and validation, or two parts of train."""
    train, held = manifest.rows("train", labelled=True), manifest.rows("validation", labelled=True)
    train, held = _shuffled(train, seed), _shuffled(held, seed)
    if not len(held):
        held, train = train[: len(train) // 3], train[len(train) // 3 :]
    train, held = train[:limit], held[:limit]
    if len(held) < 10 or len(np.unique(manifest.label[train])) < 2:
        raise DataError(
            f"{manifest.root} has too few labelled images to probe augmentations: at least two classes and 30 images "
            "are needed. Label more, or choose a policy from the contact sheet of `potstill check --augment`."
        )
    return np.sort(train), np.sort(held)


def _shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows[uniform(seed, rows, np.zeros_like(rows), 1, "probe")[:, 0].argsort()]


def _features(image: Tensor) -> np.ndarray:
    """Return float32 [B, D]: mean colour, and strength of edges by direction, in each of 7x7 regions."""
    if max(image.shape[-2:]) > _LARGEST:
        image = F.interpolate(image, (_LARGEST, _LARGEST), mode="bilinear", antialias=True)
    cells = min(_CELLS, min(image.shape[-2:]) // 2)
    grey = image.mean(1, keepdim=True)
    across = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1))
    down = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    angle = torch.arange(_DIRECTIONS)[:, None, None] * (2 * torch.pi / _DIRECTIONS)
    edges = F.relu(angle.cos() * across + angle.sin() * down)
    pooled = [F.adaptive_avg_pool2d(image, cells), F.adaptive_avg_pool2d(edges, cells).sqrt()]
    return torch.cat([part.flatten(1) for part in pooled], 1).numpy()


def _fit(clean: np.ndarray, augmented: np.ndarray, label: np.ndarray) -> Any:
    """Return a probe fitted on both, so that all probes are fitted on the same number of images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Probes are compared with each other, so the optimum is not needed: all get the same number of iterations.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=50, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(np.concatenate([clean, augmented]), np.concatenate([label, label]))


def _effect(operation: str, after: np.ndarray, before: np.ndarray, seed: int) -> Effect:
    comparison = compare(after, before, confidence=_CONFIDENCE, seed=seed, trained=False)
    low, high = comparison.interval
    verdict = VERDICTS.get(comparison.result, "no difference seen")
    return Effect(operation, 100.0 * float(after.mean()), -comparison.difference, (-high, -low), verdict)


def _spelled(spec: Any) -> str:
    """Return the operation as text that can be pasted into a recipe."""
    return spec if isinstance(spec, str) else yaml.safe_dump(spec, default_flow_style=True).strip()
