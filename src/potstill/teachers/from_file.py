"""A teacher whose predictions are in a file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from potstill.data.loader import Batch
from potstill.models.outputs import Outputs
from potstill.teachers.base import mixed


class FileOutputs:
    """A teacher with one prediction per image from a file, the same for all views.

    logits: float32 [N, K]. place: int64 [rows of the manifest], index of the prediction for a row, -1 for none.
    """

    def __init__(self, logits: np.ndarray, place: np.ndarray) -> None:
        self._logits, self._place = torch.from_numpy(logits), torch.from_numpy(place)

    def __call__(self, batch: Batch) -> Outputs:
        return mixed(Outputs(self.of(batch.index.cpu()).to(batch.image.device)), batch.mix)

    def of(self, rows: Tensor) -> Tensor:
        """Return the logits [B, K] for rows of the manifest, int64 [B], which must all have one."""
        place = self._place[rows]
        assert bool((place >= 0).all()), "a row has no prediction"
        return self._logits[place]

    def covers(self, rows: Tensor) -> Tensor:
        """Return which rows of the manifest have a prediction, bool [B]."""
        return self._place[rows] >= 0
