"""A teacher with stored outputs."""

from __future__ import annotations

from torch import Tensor

from potstill.data.loader import Batch
from potstill.models.outputs import Outputs
from potstill.teachers.base import mixed
from potstill.teachers.logit_codec import Recall, to_logits
from potstill.teachers.prediction_store import Store


class StoredTeacher:
    """A teacher with stored logits for every (view, index) of a training. classes: their number."""

    def __init__(self, store: Store, classes: int) -> None:
        self._recall, self._classes = Recall(store), classes

    def __call__(self, batch: Batch) -> Outputs:
        return mixed(Outputs(self.read(batch)), batch.mix)

    def read(self, batch: Batch) -> Tensor:
        """Return the stored logits of the unmixed images, float32 [B, K]."""
        return to_logits(self._recall(batch.index, batch.view), self._classes)
