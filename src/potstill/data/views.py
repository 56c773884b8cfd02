"""`View`: from the pixels of some rows to a model's input images, each a pure function of (seed, index, view).

So the cached teacher output for view 3 of image 7 matches that image in any batch, any process and any order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
from torch import Tensor

from potstill.data.augment.operation import in_unit, put, take
from potstill.data.augment.place import centre_crop
from potstill.data.augment.policy import Policy
from potstill.data.draws import uniform

CLEAN = -1  # the view number of the image without augmentation
VERSION = 1  # raised whenever the same policy produces other pixels


class View:
    """Augments batches by a policy; the results have `size` = (height, width)."""

    def __init__(self, policy: Policy, *, size: tuple[int, int], seed: int) -> None:
        self.policy, self.size, self.seed = policy, (int(size[0]), int(size[1])), seed
        self._streams = _streams(policy)

    def __call__(self, pixels: Tensor, index: np.ndarray | Tensor, view: np.ndarray | Tensor) -> Tensor:
        """Return float32 [B, C, h, w] in 0..1, on the device of `pixels`.

        pixels: uint8 [B, C, H, W], at least `size`. index, view: int64 [B]; rows whose view is CLEAN are only
        centre-cropped.
        """
        index, view = (column.cpu().numpy() if isinstance(column, Tensor) else column for column in (index, view))
        return in_unit(self.pixels(pixels, index, view))

    def pixels(self, pixels: Tensor, index: np.ndarray, view: np.ndarray) -> Tensor:
        """Return the same as uint8."""
        augmented = np.asarray(view) != CLEAN
        if not self.policy.operations or not augmented.any():
            return centre_crop(pixels, self.size)
        if augmented.all():
            return self._augmented(pixels, index, view)
        rows = np.flatnonzero(augmented)
        changed = self._augmented(take(pixels, rows), index[rows], view[rows])
        return put(centre_crop(pixels, self.size), rows, changed)

    def _augmented(self, images: Tensor, index: np.ndarray, view: np.ndarray) -> Tensor:
        for operation, stream in zip(self.policy.operations, self._streams, strict=True):
            images = operation.apply(images, uniform(self.seed, index, view, operation.draws, stream), self.size)
        return centre_crop(images, self.size)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of everything that determines the pixels: policy, size, seed, version of this code."""
        parts = {"policy": self.policy.to_json(), "size": self.size, "seed": self.seed, "version": VERSION}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _streams(policy: Policy) -> list[str]:
    """Return a stream name for the draws of each operation, independent of the operations before it."""
    seen: Counter[str] = Counter()
    names = []
    for operation in policy.operations:
        names.append(f"augment.{operation.name}.{seen[operation.name]}")
        seen[operation.name] += 1
    return names
