"""Teachers: functions `Batch -> Outputs`. What is trained never contains one.

A teacher is not a module of the student's, so it cannot be put into training mode by `student.train()`, cannot be
found by an optimizer and cannot be saved with the student. A live teacher proves at the end that not a bit of it
changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.columns import Recall, to_logits
from potstill.data.augment.mix import Mix, mix_targets
from potstill.data.loader import Batch
from potstill.models.card import Card
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier, Outputs
from potstill.store import Store

Teacher = Callable[[Batch], Outputs]


class LiveTeacher:
    """A network that is asked in every step, in eval mode and without gradient.

    precision: "bf16" runs it under autocast. Where the student's images are mixed, the teacher sees the unmixed ones
    and its probabilities are mixed instead, so that a stored teacher says the same. Features cannot be mixed like
    that: where the classifier is tapped, they come from a second pass over the mixed images.
    """

    def __init__(self, classifier: Classifier, *, precision: str = "fp32") -> None:
        self._classifier = classifier.eval().requires_grad_(False)
        self._precision = precision
        self._bits = bits(classifier)

    def __call__(self, batch: Batch) -> Outputs:
        with torch.no_grad(), autocast(batch.image.device, self._precision):
            outputs = self._classifier(batch.image)
            if batch.mix is not None and self._classifier.taps:
                outputs = replace(outputs, features=self._classifier(batch.mixed_image()).features)
        return mixed(replace(outputs, logits=outputs.logits.float()), batch.mix)

    def assert_unchanged(self) -> None:
        """Assert that parameters and buffers are bit for bit what they were."""
        assert not self._classifier.training, "the teacher left eval mode"
        assert bits(self._classifier) == self._bits, "the teacher changed while it taught"


class ModelTeacher:
    """Any other model `image -> Outputs` that is asked in every step, such as an ONNX file."""

    def __init__(self, model: Callable[[Tensor], Outputs]) -> None:
        self._model = model

    def __call__(self, batch: Batch) -> Outputs:
        with torch.no_grad():
            return mixed(self._model(batch.image), batch.mix)


class StoredTeacher:
    """A teacher whose answers were stored for every (view, index) that will be asked for; classes: how many."""

    def __init__(self, store: Store, classes: int) -> None:
        self._recall, self._classes = Recall(store), classes

    def __call__(self, batch: Batch) -> Outputs:
        return mixed(Outputs(self.read(batch)), batch.mix)

    def read(self, batch: Batch) -> Tensor:
        """Return what was stored for the unmixed images: float32 logits [B, K]."""
        return to_logits(self._recall(batch.index, batch.view), self._classes)


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


class EnsembleTeacher:
    """Several teachers at once: the weighted mean of their probabilities, or of their logits.

    weights: one positive number a teacher; they are normalised to sum to 1. average: "probabilities" or "logits".
    """

    def __init__(
        self, teachers: Sequence[Teacher], weights: Sequence[float], *, average: str = "probabilities"
    ) -> None:
        self._teachers, self._weights, self._average = list(teachers), tuple(weights), average

    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(averaged([t(batch).logits for t in self._teachers], self._weights, self._average))

    def assert_unchanged(self) -> None:
        """Assert that every live teacher among them is what it was."""
        for teacher in self._teachers:
            if isinstance(teacher, LiveTeacher):
                teacher.assert_unchanged()


class EnsembleModel:
    """The same as a model `image -> Outputs`, to be measured; `card` is of the first."""

    def __init__(
        self, models: Sequence[Callable[[Tensor], Outputs]], weights: Sequence[float], average: str, card: Card
    ) -> None:
        self._models, self._weights, self._average, self.card = list(models), tuple(weights), average, card

    def __call__(self, image: Tensor) -> Outputs:
        said = [self._ask(model, image).to(image.device) for model in self._models]
        return Outputs(averaged(said, self._weights, self._average))

    @staticmethod
    def _ask(model: Callable[[Tensor], Outputs], image: Tensor) -> Tensor:
        if isinstance(model, Classifier):
            image = image.to(model.eval().mean.device)
        return model(image).logits.float()


def averaged(logits: Sequence[Tensor], weights: Sequence[float], average: str) -> Tensor:
    """Return the weighted mean of logits [B, K], taken of the "probabilities" or of the "logits" themselves."""
    shares = [weight / sum(weights) for weight in weights]
    if average == "logits":
        return sum(share * z for share, z in zip(shares, logits, strict=True))
    return log_probabilities(sum(share * F.softmax(z, 1) for share, z in zip(shares, logits, strict=True)))


def mixed(outputs: Outputs, mix: Mix | None) -> Outputs:
    """Return the outputs whose probabilities are mixed as the student's images are."""
    if mix is None:
        return outputs
    return replace(outputs, logits=log_probabilities(mix_targets(F.softmax(outputs.logits, 1), mix)))


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logits for probabilities; 0 becomes the log of the smallest normal number, not -inf."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a forward pass runs in `precision` ("fp32" or "bf16")."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
