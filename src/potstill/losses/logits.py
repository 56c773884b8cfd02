"""Losses on logits [B, K] that compare each row with its target row.

z are logits, p = softmax(z / T), s the student, t the teacher. Every function returns one value per sample [B].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision, kl


@full_precision
def cross_entropy(
    student: Tensor,
    label: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | None = None,
    prior: Sequence[float] | None = None,
) -> Tensor:
    """-log p_s[label]: the loss of every classifier.

    label: int64 [B], -100 where unlabelled (the value is 0 there), or probabilities [B, K], as from mixup; a row of
    zeros is unlabelled. label_smoothing: 0..1, the mass spread over all classes (arXiv:1512.00567). class_weight: [K],
    factors of the loss by class. prior: [K], the shares of the classes, above 0: the logits are adjusted by their
    logarithms, so that the network itself balances the classes (Menon et al. 2021, arXiv:2007.07314).
    """
    weight = None if class_weight is None else torch.tensor(class_weight, device=student.device, dtype=student.dtype)
    if prior is not None:
        student = student + torch.tensor(prior, device=student.device, dtype=student.dtype).log()
    if not label.is_floating_point():
        return F.cross_entropy(student, label, weight=weight, reduction="none", label_smoothing=label_smoothing)
    spread = label.sum(1, keepdim=True) / label.shape[1]
    target = (1 - label_smoothing) * label + label_smoothing * spread
    return -(target * F.log_softmax(student, 1) * (1 if weight is None else weight)).sum(1)


@full_precision
def soft_cross_entropy(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T^2 * -sum_c p_t[c] log p_s[c]: cross-entropy with the teacher's probabilities.

    `kd` plus T^2 times the teacher's entropy: the same gradient as `kd`, but not 0 for equal outputs.
    """
    target = F.softmax(teacher / temperature, 1)
    return -(temperature**2) * (target * F.log_softmax(student / temperature, 1)).sum(1)


@full_precision
def hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    """-log p_s[argmax z_t]: the teacher's prediction as label (hard distillation of DeiT, arXiv:2012.12877)."""
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


@full_precision
def kd(student: Tensor, teacher: Tensor, *, temperature: float | Tensor = 4.0) -> Tensor:
    """T^2 * KL(p_t || p_s) (Hinton et al., arXiv:1503.02531).

    Summed over classes, so that its scale does not depend on their number. The same function is soft distillation of
    DeiT (arXiv:2012.12877, on the distillation head), function matching (arXiv:2106.05237: no labels, same view, long
    training) and, at temperature 1, the term of deep mutual learning (arXiv:1706.00384).
    temperature: > 0; a tensor if it is learned.
    """
    log_t = F.log_softmax(teacher / temperature, 1)
    return temperature**2 * kl(log_t, F.log_softmax(student / temperature, 1))


@full_precision
def ls_kd(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, eps: float = 1e-7) -> Tensor:
    """`kd` on standardised logits: z <- (z - mean) / (std + eps) (Sun et al., arXiv:2403.01427).

    Both networks' rows are standardised with the unbiased std over the classes, so the student learns the teacher's
    order and relative gaps, independent of shift and scale. Published with an outer weight of 9. A row of equal logits
    becomes zeros without gradient. With two classes only their order remains and the gradient vanishes.
    """
    return kd(standardise(student, eps=eps), standardise(teacher, eps=eps), temperature=temperature)


def standardise(logits: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Return the rows of logits [B, K] with mean 0 and standard deviation 1 (zeros for a row of equal logits)."""
    deviation = logits.std(1, keepdim=True)
    centred = logits - logits.mean(1, keepdim=True)
    # The derivative at deviation 0 would be 1 / eps: too large for a student whose head is initialised at zero.
    return torch.where(deviation > 0, centred / (deviation + eps), 0)


@full_precision
def ttm(student: Tensor, teacher: Tensor, *, gamma: float = 0.1) -> Tensor:
    """KL(softmax(gamma z_t) || softmax(z_s)): temperature 1 / gamma on the teacher only (arXiv:2402.11148).

    No T^2. gamma: 0..1; the paper's outer weight for 0.1 is 45.
    """
    return kl(F.log_softmax(gamma * teacher, 1), F.log_softmax(student, 1))


@full_precision
def wttm(student: Tensor, teacher: Tensor, *, gamma: float = 0.2) -> Tensor:
    """`ttm` with each sample weighted by sum_c p_t[c]^gamma, which is larger for a less confident teacher.

    The weight is between 1 and K^(1 - gamma), so it also sets the scale (Zheng and Yang, arXiv:2402.11148; outer
    weight about 4).
    """
    return wttm_weight(teacher, gamma=gamma) * ttm(student, teacher, gamma=gamma)


@full_precision
def wttm_weight(teacher: Tensor, *, gamma: float = 0.2) -> Tensor:
    """Return the weight sum_c softmax(z_t)[c]^gamma of each sample [B], in log space, because the power underflows."""
    return (gamma * F.log_softmax(teacher, 1)).logsumexp(1).exp()
