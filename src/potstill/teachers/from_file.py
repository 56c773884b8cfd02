"""A teacher whose predictions lie in a file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from potstill.data.loader import Batch
from potstill.models.outputs import Outputs
from potstill.teachers.base import mixed


class GivenTeacher:
    """A teacher whose answers lie in a file: one an image, whatever the view.

    logits: float32 [N, K]. place: int64 [rows of the manifest], which answer is about a row, -1 where none is.
    """

    def __init__(self, logits: np.ndarray, place: np.ndarray) -> None:
        self._logits, self._place = torch.from_numpy(logits), torch.from_numpy(place)

    def __call__(self, batch: Batch) -> Outputs:
        return mixed(Outputs(self.of(batch.index.cpu()).to(batch.image.device)), batch.mix)

    def of(self, rows: Tensor) -> Tensor:
        """Return the logits [B, K] for rows of the manifest, int64 [B], which must all be covered."""
        place = self._place[rows]
        assert bool((place >= 0).all()), "a row without an answer was asked about"
        return self._logits[place]

    def covers(self, rows: Tensor) -> Tensor:
        """Return bool [B]: for which rows of the manifest there is an answer."""
        return self._place[rows] >= 0
