"""Teachers that are evaluated in every step.

A teacher is not a submodule of the student, so `student.train()` does not change its mode, no optimizer has its
parameters and it is not saved with the student. `assert_unchanged` verifies that it did not change.
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
    """A network that is evaluated in every step, in eval mode and without gradient.

    precision: "bf16" runs it under autocast. If the student's images are mixed, the teacher is evaluated on the unmixed
    ones and its probabilities are mixed, so that cached logits give the same result. Features cannot be mixed like
    that: if the classifier has taps, they are of a second forward pass on the mixed images.
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
        """Assert that parameters and buffers did not change by a bit."""
        assert not self._classifier.training, "the teacher left eval mode"
        assert bits(self._classifier) == self._bits, "the teacher changed during training"


class ModelTeacher:
    """Any other model `image -> Outputs` that is evaluated in every step, such as an ONNX file."""

    def __init__(self, model: Callable[[Tensor], Outputs]) -> None:
        self._model = model

    def __call__(self, batch: Batch) -> Outputs:
        with torch.no_grad():
            return mixed(self._model(batch.image), batch.mix)
