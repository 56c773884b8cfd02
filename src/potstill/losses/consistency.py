"""Consistency losses: the prediction for a weakly augmented view is the pseudo-label of the strongly augmented view.

student: logits of the strong views, teacher: logits of the weak views of the same images, [B, K]. Only rows whose weak
view exceeds a confidence threshold count; it is fixed (FixMatch) or adapts to the network (FreeMatch).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses.common import full_precision


@full_precision
def fixmatch(student: Tensor, teacher: Tensor, *, threshold: float = 0.95) -> Tensor:
    """1[max_c q_c >= threshold] * -log p_s[argmax q], q = softmax(teacher) (FixMatch, arXiv:2001.07685, equation 4).

    One value per sample [B], 0 for a row below the threshold; threshold: 0..1.
    """
    confidence, label = F.softmax(teacher, 1).max(1)
    return F.cross_entropy(student, label, reduction="none") * (confidence >= threshold)


class FreeMatch(nn.Module):
    """`fixmatch` with an adaptive threshold per class, and a fairness term (arXiv:2205.07246).

    With q the weak views' probabilities, and exponential moving averages with `momentum` (m):
    tau <- m tau + (1 - m) mean_b max q_b; p <- m p + (1 - m) mean_b q_b; h <- m h + (1 - m) histogram of argmax q_b.
    All start at 1 / K. The threshold of class c is tau p_c / max p. A sample's value is `fixmatch` at the threshold of
    its class plus `fairness_weight` times `fairness` of the batch. The averages are buffers, saved in checkpoints.
    """

    tau: Tensor
    p: Tensor
    h: Tensor

    def __init__(self, classes: int, *, momentum: float = 0.999, fairness_weight: float = 0.01) -> None:
        super().__init__()
        self._momentum, self._fairness_weight = momentum, fairness_weight
        self.register_buffer("tau", torch.tensor(1 / classes))
        self.register_buffer("p", torch.full((classes,), 1 / classes))
        self.register_buffer("h", torch.full((classes,), 1 / classes))

    @property
    def thresholds(self) -> Tensor:
        """Return the current threshold of each class [K]."""
        return self.tau * self.p / self.p.max()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value per sample [B] for logits [B, K]; the averages are updated with the batch first."""
        q = F.softmax(teacher.float(), 1)
        self._update(q)
        confidence, label = q.max(1)
        mask = confidence >= self.thresholds[label]
        values = F.cross_entropy(student.float(), label, reduction="none") * mask
        return values + self._fairness_weight * fairness(student[mask], self.p, self.h)

    @torch.no_grad()
    def _update(self, q: Tensor) -> None:
        confidence, label = q.max(1)
        histogram = torch.bincount(label, minlength=q.shape[1]) / len(q)
        for average, new in ((self.tau, confidence.mean()), (self.p, q.mean(0)), (self.h, histogram)):
            average.lerp_(new.to(average.dtype), 1 - self._momentum)


@full_precision
def fairness(student: Tensor, p: Tensor, h: Tensor) -> Tensor:
    """sum_c a_c log b_c, a = norm(p / h), b = norm(p' / h') (FreeMatch, arXiv:2205.07246, equation 11; a scalar).

    student: logits of the strong views above the threshold [B', K]; p' is their mean probability and h' the histogram
    of their argmax; norm divides by the sum. It is minimal if the histogram of predictions matches the mean
    probabilities. A class without predictions counts as 0 in p / h; without rows the value is 0.
    """
    if not len(student):
        return student.sum()
    probability = F.softmax(student, 1)
    histogram = torch.bincount(probability.argmax(1), minlength=probability.shape[1]) / len(probability)
    expected, actual = _normalised(p, h), _normalised(probability.mean(0), histogram)
    return (expected * (actual + 1e-12).log()).sum()


def _normalised(p: Tensor, h: Tensor) -> Tensor:
    ratio = torch.where(h > 0, p / h.clamp_min(1e-12), 0)
    return ratio / ratio.sum()
