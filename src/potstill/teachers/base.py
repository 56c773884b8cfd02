"""The type of teachers, `Batch -> Outputs`, and functions to mix and average probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.data.augment.mix import Mix, mix_targets
from potstill.data.loader import Batch
from potstill.models.outputs import Outputs

Teacher = Callable[[Batch], Outputs]


def averaged(logits: Sequence[Tensor], weights: Sequence[float], average: str) -> Tensor:
    """Return logits [B, K] of the weighted mean of the "probabilities" or of the "logits" themselves."""
    shares = [weight / sum(weights) for weight in weights]
    pairs = zip(shares, logits, strict=True)
    if average == "logits":
        return torch.as_tensor(sum(share * z for share, z in pairs))
    return log_probabilities(torch.as_tensor(sum(share * F.softmax(z, 1) for share, z in pairs)))


def mixed(outputs: Outputs, mix: Mix | None) -> Outputs:
    """Return the outputs with probabilities mixed like the student's images."""
    if mix is None:
        return outputs
    return replace(outputs, logits=log_probabilities(mix_targets(F.softmax(outputs.logits, 1), mix)))


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logits for probabilities; 0 becomes the log of the smallest normal number, not -inf."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
