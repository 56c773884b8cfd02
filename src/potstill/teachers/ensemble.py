"""Ensembles of teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from potstill.data.loader import Batch
from potstill.models.card import Card
from potstill.models.outputs import Classifier, Outputs
from potstill.teachers.base import Teacher, averaged


class AveragedTeacher:
    """The weighted mean of the probabilities, or of the logits, of several teachers.

    weights: one positive number per teacher, normalised to sum 1. average: "probabilities" or "logits".
    """

    def __init__(
        self, teachers: Sequence[Teacher], weights: Sequence[float], *, average: str = "probabilities"
    ) -> None:
        self._teachers, self._weights, self._average = list(teachers), tuple(weights), average

    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(averaged([t(batch).logits for t in self._teachers], self._weights, self._average))


class EnsembleModel:
    """An ensemble of models `image -> Outputs`, for evaluation. card: of the first model."""

    def __init__(
        self, models: Sequence[Callable[[Tensor], Outputs]], weights: Sequence[float], average: str, card: Card
    ) -> None:
        self._models, self._weights, self._average, self.card = list(models), tuple(weights), average, card

    def __call__(self, image: Tensor) -> Outputs:
        logits = [self._logits(model, image).to(image.device) for model in self._models]
        return Outputs(averaged(logits, self._weights, self._average))

    @staticmethod
    def _logits(model: Callable[[Tensor], Outputs], image: Tensor) -> Tensor:
        if isinstance(model, Classifier):
            image = image.to(model.eval().mean.device)
        return model(image).logits.float()
