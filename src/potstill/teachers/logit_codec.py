"""The encoding of stored logits: all classes, or the top k and the sum of the others.

A thousand classes in half precision are 2 kB per image and view; the top 16 with the rest are 66 bytes, and keep all
but a few thousandths of the probability. Columns of a store, one row per image:

    all classes    logits   float16 [N, K]
    top k          values   float16 [N, k]   the k largest logits, decreasing
                   classes  uint16 (int32 above 65,536 classes) [N, k]   their classes
                   rest     float16 [N]      the mean logit of the other classes

`rest` is log(sum(exp(others)) / (K - k)), so the probabilities of the top k, and the sum of the others, are exact at
temperature 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from potstill.teachers.prediction_store import Store

BEST = 16
LARGEST_STORE = 2e9  # bytes of a store of all classes, above which only the top k are kept
LARGEST_RESIDENT = 2**30  # bytes of a store that is copied to an accelerator's memory
LARGEST_HALF = 65504.0


def kept(classes: int, rows: int, views: int) -> int | None:
    """Return the number of classes to keep of each output: None is all, unless the store would be too large."""
    return BEST if classes > 4 * BEST and row_bytes(classes, None) * rows * views > LARGEST_STORE else None


def row_bytes(classes: int, best: int | None) -> int:
    """Return the bytes of one image in one view."""
    return 2 * classes if best is None else best * (4 if classes <= 2**16 else 6) + 2


def from_logits(logits: Tensor, best: int | None) -> dict[str, np.ndarray]:
    """Return the columns of logits [N, K]: of all classes if `best` is None, else of the top `best`."""
    logits = logits.detach().float().clamp(-LARGEST_HALF, LARGEST_HALF)
    if best is None:
        return {"logits": logits.half().cpu().numpy()}
    values, classes = logits.topk(best, dim=1)
    others = logits.scatter(1, classes, -torch.inf)
    rest = others.logsumexp(1) - np.log(logits.shape[1] - best)
    kind = np.uint16 if logits.shape[1] <= 2**16 else np.int32
    return {
        "values": values.half().cpu().numpy(),
        "classes": classes.cpu().numpy().astype(kind),
        "rest": rest.clamp_min(-LARGEST_HALF).half().cpu().numpy(),
    }


def to_logits(columns: dict[str, Tensor], classes: int | None = None) -> Tensor:
    """Return float32 logits [B, K] of columns as tensors. classes: K, needed if only the top k were kept.

    The column of classes may have any integer type that can be used as index.
    """
    if "logits" in columns:
        return columns["logits"].float()
    assert classes is not None, "the number of classes is not stored"
    logits = columns["rest"].float()[:, None].repeat(1, classes)
    return logits.scatter_(1, columns["classes"].long(), columns["values"].float())


class Recall:
    """The columns of a store for a batch, as tensors on the batch's device.

    A store that fits is copied to the memory of the accelerator at the first batch, so that no step waits for the host.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._resident: tuple[Tensor, dict[str, Tensor]] | None = None

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """Return the columns [B, ...] of int64 `index` and `view` [B]."""
        if index.device.type == "cpu" or self._store.bytes > LARGEST_RESIDENT:
            columns = self._store.read(index.cpu().numpy(), view.cpu().numpy())
            return {name: values.to(index.device, non_blocking=True) for name, values in _tensors(columns).items()}
        if self._resident is None:
            self._resident = self._copied(index.device)
        position, columns = self._resident
        row = view % self._store.views * len(self._store.rows) + position[index]
        return {name: values[row] for name, values in columns.items()}

    def _copied(self, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the position of each row of the manifest, and the columns [views * rows, ...]."""
        rows, views = self._store.rows, self._store.views
        position = np.zeros(rows.max() + 1, np.int64)
        position[rows] = np.arange(len(rows))
        every = _tensors(self._store.read(np.tile(rows, views), np.repeat(np.arange(views), len(rows))))
        return torch.from_numpy(position).to(device), {name: values.to(device) for name, values in every.items()}


def _tensors(columns: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the columns as tensors; uint16, which torch hardly supports, becomes int32."""
    wide = {name: values.astype(np.int32) if values.dtype == np.uint16 else values for name, values in columns.items()}
    return {name: torch.from_numpy(values) for name, values in wide.items()}
