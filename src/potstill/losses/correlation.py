"""Losses on logits that compare rows and columns of a whole batch: DIST and MLLD.

A term of the whole batch is assigned to every sample in full, or split by rows, such that the mean over the batch is
the published value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision
from potstill.losses.logits import kd, ls_kd


def _pearson(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """Return the correlation of each row of a with the same row of b; eps is added to the product of norms."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + eps)


@full_precision
def dist_inter(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, eps: float = 1e-8) -> Tensor:
    """T^2 * (1 - correlation of the student's row with the teacher's): the first term of `dist`."""
    rows = _pearson(F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), eps)
    return temperature**2 * (1 - rows)


@full_precision
def dist_intra(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, eps: float = 1e-8) -> Tensor:
    """T^2 * (1 - mean over classes of the correlation of columns): the second term of `dist`, same for all rows."""
    s, t = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    columns = _pearson(s.T, t.T, eps).mean()
    return (temperature**2 * (1 - columns)).expand(len(student))


@full_precision
def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    eps: float = 1e-8,
) -> Tensor:
    """beta * inter + gamma * intra: Pearson correlation of rows and columns of softmax(z / T) (arXiv:2205.10536).

    The student matches the teacher's relations but not its scale, which helps if the teacher is far stronger. The
    intra term is one value per batch, assigned to every sample; it needs a batch that is not tiny. A column of
    vanishing probabilities counts as uncorrelated, and a student whose rows are uniform (a head initialised at zero)
    gets a gradient of order 1 / eps. Temperature 4 on CIFAR; outer weight 2 on ImageNet. With two classes every row
    correlation is 1 or -1 and only the intra term has a gradient.
    """
    inter = dist_inter(student, teacher, temperature=temperature, eps=eps)
    return beta * inter + gamma * dist_intra(student, teacher, temperature=temperature, eps=eps)


@full_precision
def class_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """sum over K x K of (P_s^T P_s - P_t^T P_t)^2 / K, P = softmax(z / T): a part of `mlld`, same for all rows."""
    s, t = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return ((s.T @ s - t.T @ t).square().sum() / student.shape[1]).expand(len(student))


@full_precision
def batch_correlation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """sum over each row of (P_s P_s^T - P_t P_t^T)^2: a part of `mlld`; its mean is the sum over B x B by B."""
    s, t = F.softmax(student / temperature, 1), F.softmax(teacher / temperature, 1)
    return (s @ s.T - t @ t.T).square().sum(1)


@full_precision
def mlld(
    student: Tensor,
    teacher: Tensor,
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    standardised: bool = False,
) -> Tensor:
    """sum over T of `kd` + `class_correlation` + `batch_correlation` (multi-level logit distillation, CVPR 2023).

    One view; the published recipe adds a second, strongly augmented one and trains twice as long. Its confidence
    masks multiply means in the published code, which only scales them; they are omitted here. Only the instance term
    has a factor T^2. standardised: the instance term is `ls_kd` (arXiv:2403.01427).
    """
    instance = ls_kd if standardised else kd
    parts = [
        part(student, teacher, temperature=temperature)
        for temperature in temperatures
        for part in (instance, class_correlation, batch_correlation)
    ]
    return torch.stack(parts).sum(0)
