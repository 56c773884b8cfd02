"""Losses that separate the labelled class from the others: DKD and NKD.

Common implementations use the logarithm of a sum of probabilities, which overflows if one logit is larger by a few
hundred, and mask the labelled class by subtracting 1000, which fails for logits of that size. Here everything is a
difference of logsumexps and the class is masked exactly. With two classes there is only one other class, its
probability among the others is always 1, and the terms of the others are exactly 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision, kl, labelled


def _is_label(logits: Tensor, label: Tensor) -> Tensor:
    """Return a mask [B, K] of the labelled class; class 0 is used for unlabelled rows."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(1, label.clamp_min(0).unsqueeze(1), True)


def _log_binary(logits: Tensor, is_label: Tensor) -> Tensor:
    """Return log [p_y, 1 - p_y] as [B, 2]."""
    right = logits.masked_fill(~is_label, -torch.inf).logsumexp(1)
    others = logits.masked_fill(is_label, -torch.inf).logsumexp(1)
    return torch.stack([right, others], 1) - logits.logsumexp(1, keepdim=True)


def _log_others(logits: Tensor, is_label: Tensor) -> Tensor:
    """Return log softmax over the classes other than the label [B, K], with 0 at the label."""
    return F.log_softmax(logits.masked_fill(is_label, -torch.inf), 1).masked_fill(is_label, 0)


@full_precision
def tckd(student: Tensor, teacher: Tensor, label: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 * KL([p_t[y], 1 - p_t[y]] || [p_s[y], 1 - p_s[y]]): the first half of `dkd`. 0 where unlabelled."""
    mask = _is_label(student, label)
    value = kl(_log_binary(teacher / temperature, mask), _log_binary(student / temperature, mask))
    return labelled(temperature**2 * value, label)


@full_precision
def nckd(student: Tensor, teacher: Tensor, label: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T^2 * KL(q_t || q_s), q = softmax(z / T) over the classes other than y: the second half of `dkd`.

    0 where unlabelled, and exactly 0 for two classes.
    """
    mask = _is_label(student, label)
    value = kl(_log_others(teacher / temperature, mask), _log_others(student / temperature, mask))
    return labelled(temperature**2 * value, label)


@full_precision
def dkd(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """alpha * TCKD + beta * NCKD (decoupled knowledge distillation, Zhao et al., arXiv:2203.08679).

    `kd` equals this with alpha = 1 and beta = 1 - p_t[y] per sample: a confident teacher suppresses the information
    about the other classes, and a fixed beta restores it. beta: 2..8 on CIFAR (8 for most pairs), 0.5..2 with
    temperature 1 on ImageNet. Published with a warm-up of the weight over the first 20 epochs. 0 where unlabelled; for
    two classes it is alpha * `kd`.
    """
    first = tckd(student, teacher, label, temperature=temperature)
    return alpha * first + beta * nckd(student, teacher, label, temperature=temperature)


@full_precision
def nkd_target(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """-p_t[y] * log p_s[y], always at temperature 1: the first term of `nkd`. 0 where unlabelled."""
    row = label.clamp_min(0).unsqueeze(1)
    confidence = F.softmax(teacher, 1).gather(1, row)
    return labelled(-(confidence * F.log_softmax(student, 1).gather(1, row)).squeeze(1), label)


@full_precision
def nkd_nontarget(student: Tensor, teacher: Tensor, label: Tensor, *, temperature: float = 1.0) -> Tensor:
    """-T^2 * sum over c != y of q_t[c] log q_s[c], q as in `nckd`: the second term of `nkd`. 0 where unlabelled."""
    mask = _is_label(student, label)
    # At the label the teacher's "probability" is exp(0) = 1, but the student's logarithm is 0.
    target = _log_others(teacher / temperature, mask).exp()
    value = -(target * _log_others(student / temperature, mask)).sum(1)
    return labelled(temperature**2 * value, label)


@full_precision
def nkd(student: Tensor, teacher: Tensor, label: Tensor, *, gamma: float = 1.5, temperature: float = 1.0) -> Tensor:
    """-p_t[y] log p_s[y] - gamma * T^2 * sum over c != y of q_t[c] log q_s[c] (Yang et al., arXiv:2303.13005).

    These are cross-entropies, so the value is not 0 for equal outputs. To be added to the cross-entropy with the label.
    0 where unlabelled; for two classes only the first term remains.
    """
    others = nkd_nontarget(student, teacher, label, temperature=temperature)
    return nkd_target(student, teacher, label) + gamma * others
