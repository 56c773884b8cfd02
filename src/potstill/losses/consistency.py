"""Losses of consistency: what a network says of a weakly changed image is what it learns of the strongly changed one.

student: logits of the strong views, teacher: logits of the weak views of the same images, [B, K]. Only rows whose weak
view is sure enough count, by a threshold that is fixed (FixMatch) or grows with what the network knows (FreeMatch).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses.common import full_precision


@full_precision
def fixmatch(student: Tensor, teacher: Tensor, *, threshold: float = 0.95) -> Tensor:
    """1[max_c q_c >= threshold] * -log p_s[argmax q], q = softmax(teacher) (FixMatch, arXiv:2001.07685, equation 4).

    One value a sample [B], 0 for a row that is not sure enough; threshold: 0..1.
    """
    sure, label = F.softmax(teacher, 1).max(1)
    return F.cross_entropy(student, label, reduction="none") * (sure >= threshold)


class FreeMatch(nn.Module):
    """`fixmatch` with a threshold for each class that follows the network, and fairness (arXiv:2205.07246).

    With q the weak views' probabilities, and averages that keep `momentum` (m) of themselves at each step:
    tau <- m tau + (1 - m) mean_b max q_b; p <- m p + (1 - m) mean_b q_b; h <- m h + (1 - m) histogram of argmax q_b.
    All start at 1 / K. The threshold of class c is tau p_c / max p. A sample's value is `fixmatch` at the threshold of
    its class plus `fairness_weight` times `fairness` of the batch. The averages are buffers: a checkpoint has them.
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
        """Return the threshold of each class [K] as it stands."""
        return self.tau * self.p / self.p.max()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value a sample [B] for logits [B, K]; the averages take the batch in first."""
        q = F.softmax(teacher.float(), 1)
        self._follow(q)
        sure, label = q.max(1)
        counts = sure >= self.thresholds[label]
        values = F.cross_entropy(student.float(), label, reduction="none") * counts
        return values + self._fairness_weight * fairness(student[counts], self.p, self.h)

    @torch.no_grad()
    def _follow(self, q: Tensor) -> None:
        sure, label = q.max(1)
        shown = torch.bincount(label, minlength=q.shape[1]) / len(q)
        for average, new in ((self.tau, sure.mean()), (self.p, q.mean(0)), (self.h, shown)):
            average.lerp_(new.to(average.dtype), 1 - self._momentum)


@full_precision
def fairness(student: Tensor, p: Tensor, h: Tensor) -> Tensor:
    """sum_c a_c log b_c, a = norm(p / h), b = norm(p' / h') (FreeMatch, arXiv:2205.07246, equation 11; a scalar).

    student: logits of the sure rows' strong views [B', K]; p' is their mean probability and h' the histogram of their
    decisions; norm divides by the sum. Least where the network decides for classes as often as it thinks of them. A
    class that nobody decided for counts as 0 in p / h, and without sure rows the value is 0.
    """
    if not len(student):
        return student.sum()
    chance = F.softmax(student, 1)
    decided = torch.bincount(chance.argmax(1), minlength=chance.shape[1]) / len(chance)
    expected, found = _share(p, h), _share(chance.mean(0), decided)
    return (expected * (found + 1e-12).log()).sum()


def _share(p: Tensor, h: Tensor) -> Tensor:
    ratio = torch.where(h > 0, p / h.clamp_min(1e-12), 0)
    return ratio / ratio.sum()
