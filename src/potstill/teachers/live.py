"""Teachers: functions `Batch -> Outputs`. What is trained never contains one.

A teacher is not a module of the student's, so it cannot be put into training mode by `student.train()`, cannot be
found by an optimizer and cannot be saved with the student. A live teacher proves at the end that not a bit of it
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from potstill.data.loader import Batch
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier, Outputs
from potstill.teachers.base import mixed
from potstill.torch_context import autocast


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
