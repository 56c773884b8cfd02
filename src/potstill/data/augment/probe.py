"""Which augmentations change *these* labels? A cheap probe is trained with each, and asked about clean images.

A mirrored photo of a cat is a cat, a mirrored 2 is no digit; whether a rotation or a change of hue does harm depends
on the classes. The probe is a logistic regression on pooled pixels and edge directions. Fitted on clean images *and*
augmented ones, it becomes worse at clean held-out images where the augmentation makes one class look like another,
and better where it does not. (Asking a probe that saw only clean images about augmented ones does not tell the two
apart: a shift of one pixel then seems as bad as a mirrored digit.)
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
_CONFIDENCE = 0.99  # because many operations are tried
_CELLS = 7  # pooling regions a side
_DIRECTIONS = 8
_LARGEST = 64  # pixels a side that edges are looked for in


@dataclass(frozen=True)
class Effect:
    """What training a probe with an operation did to its accuracy on clean held-out images.

    accuracy: in percent. drop: points lost against the probe that saw clean images only, with its 99 % interval.
    verdict: "costs" where the whole interval is above 0, "helps" where it is below, else "no difference seen".
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
    """Return the effect of each operation, the most harmful first. The test split is not looked at.

    pixels: of the manifest. size: (height, width) of a view. operations: as a recipe spells them; by default what
    makes sense for grey or colour images. limit: images that each probe is fitted on. A minute at most.
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

    clean, asked = features(fitted), features(held)
    before = _fit(clean, clean, label[fitted]).predict(asked) == label[held]
    found = []
    with task("Probing augmentations", len(policies)) as shown:
        for spec, policy in zip(operations, policies, strict=True):
            probe = _fit(clean, features(fitted, policy, 0), label[fitted])
            found.append(_effect(_spelled(spec), probe.predict(asked) == label[held], before, seed))
            shown.advance()
    return sorted(found, key=lambda effect: -effect.drop)


def _halves(manifest: Manifest, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labelled rows to fit on and to ask about: train and validation, or two parts of train."""
    train, held = manifest.rows("train", labelled=True), manifest.rows("validation", labelled=True)
    train, held = _shuffled(train, seed), _shuffled(held, seed)
    if not len(held):
        held, train = train[: len(train) // 3], train[len(train) // 3 :]
    train, held = train[:limit], held[:limit]
    if len(held) < 10 or len(np.unique(manifest.label[train])) < 2:
        raise DataError(
            f"{manifest.root} has too few labelled images to probe augmentations: at least two classes and 30 images "
            "are needed. Label more, or choose a policy by looking at the sheet of `potstill check --augment`."
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
    """Return a probe fitted on both, so that each was fitted on equally many images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Comparing probes needs no optimum: fifty steps are enough, and a fixed number is what all of them get.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=50, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(np.concatenate([clean, augmented]), np.concatenate([label, label]))


def _effect(operation: str, after: np.ndarray, before: np.ndarray, seed: int) -> Effect:
    found = compare(after, before, confidence=_CONFIDENCE, seed=seed, trained=False)
    low, high = found.interval
    verdict = VERDICTS.get(found.result, "no difference seen")
    return Effect(operation, 100.0 * float(after.mean()), -found.difference, (-high, -low), verdict)


def _spelled(spec: Any) -> str:
    """Return the operation as it can be pasted into a recipe."""
    return spec if isinstance(spec, str) else yaml.safe_dump(spec, default_flow_style=True).strip()
