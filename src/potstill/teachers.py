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

from potstill.data.augment.mix import Mix, mix_targets
from potstill.data.loader import Batch
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


class StoredTeacher:
    """A teacher whose logits were stored for every (view, index) that will be asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, batch: Batch) -> Outputs:
        said = self._store.read(batch.index.cpu().numpy(), batch.view.cpu().numpy())
        logits = torch.from_numpy(said["logits"].astype(np.float32)).to(batch.image.device, non_blocking=True)
        return mixed(Outputs(logits), batch.mix)


class EnsembleTeacher:
    """Several teachers at once: the weighted mean of their probabilities, or of their logits.

    weights: one positive number a teacher; they are normalised to sum to 1.
    """

    def __init__(
        self, teachers: Sequence[Teacher], weights: Sequence[float], *, average: str = "probabilities"
    ) -> None:
        total = sum(weights)
        self._teachers, self._weights, self._average = list(teachers), [w / total for w in weights], average

    def __call__(self, batch: Batch) -> Outputs:
        logits = [teacher(batch).logits for teacher in self._teachers]
        if self._average == "logits":
            return Outputs(sum(w * z for w, z in zip(self._weights, logits, strict=True)))
        mean = sum(w * F.softmax(z, 1) for w, z in zip(self._weights, logits, strict=True))
        return Outputs(log_probabilities(mean))


def mixed(outputs: Outputs, mix: Mix | None) -> Outputs:
    """Return the outputs whose probabilities are mixed as the student's images are."""
    if mix is None:
        return outputs
    return replace(outputs, logits=log_probabilities(mix_targets(F.softmax(outputs.logits, 1), mix)))


def log_probabilities(probabilities: torch.Tensor) -> torch.Tensor:
    """Return logits for probabilities; 0 becomes the log of the smallest normal number, not -inf."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Return the context in which a forward pass runs in `precision` ("fp32" or "bf16")."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
