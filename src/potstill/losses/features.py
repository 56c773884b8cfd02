"""Losses that compare student and teacher features element by element, after a projector if shapes differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision, mean_square


def _assert_same_shape(student: Tensor, teacher: Tensor) -> None:
    # Broadcasting would silently compare every channel with one.
    assert student.shape == teacher.shape, f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"


@full_precision
def feature_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over all elements of (f_s - f_t)^2 (hints of FitNets, arXiv:1412.6550).

    Maps, tokens or pooled vectors of equal shape [B, ...]. Also the loss of SimKD (arXiv:2203.14001). Outer weight
    100 in the common recipe for maps.
    """
    _assert_same_shape(student, teacher)
    return mean_square(student - teacher)


@full_precision
def vid(student: Tensor, teacher: Tensor, *, log_scale: Tensor, eps: float = 1e-5) -> Tensor:
    """mean of ((f_s - f_t)^2 / v + log v) / 2, v = softplus(log_scale) + eps by channel (arXiv:1904.05835).

    Variational information distillation: the negative log-likelihood of the teacher's feature under a Gaussian whose
    mean is the student's, without the constant; it can be negative. Shapes [B, C, ...] are equal; log_scale: [C],
    trained by `learned.Vid`.
    """
    _assert_same_shape(student, teacher)
    variance = (F.softplus(log_scale) + eps).view(-1, *[1] * (student.dim() - 2))
    return ((student - teacher).square() / variance + variance.log()).flatten(1).mean(1) / 2


@full_precision
def srrl(
    student: Tensor,
    teacher: Tensor,
    *,
    weight: Tensor,
    bias: Tensor,
    teacher_logits: Tensor,
    feature_weight: float = 1.0,
    logit_weight: float = 1.0,
) -> Tensor:
    """mean (f_s - f_t)^2 + mean (W f_s + b - z_t)^2: uses the teacher's classifier on the student (ICLR 2021).

    Softmax regression representation learning. student: pooled features [B, D] after the connector of `learned.Srrl`;
    weight [K, D] and bias [K]: the teacher's classifier, frozen.
    """
    _assert_same_shape(student, teacher)
    logits = F.linear(student, weight, bias)
    return feature_weight * mean_square(student - teacher) + logit_weight * mean_square(logits - teacher_logits)


@full_precision
def hcl(student: Sequence[Tensor], teacher: Sequence[Tensor], *, levels: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Hierarchical context loss, summed over layers (ReviewKD, arXiv:2104.09044).

    Each layer's mean squared error at full size and average-pooled to 4 x 4, 2 x 2, 1 x 1 (levels smaller than the
    student's height), weighted 1, 1/2, 1/4, 1/8 in the order of the levels used and divided by the sum of weights.
    Lists of maps of equal shapes, after the fusion of `fusion.ReviewKD`.
    """
    layers = zip(student, teacher, strict=True)
    return torch.stack([_hierarchical(s, t, levels) for s, t in layers]).sum(0)


def _hierarchical(student: Tensor, teacher: Tensor, levels: Sequence[int]) -> Tensor:
    _assert_same_shape(student, teacher)
    used = [level for level in levels if level < student.shape[2]]
    weights = [0.5**k for k in range(len(used) + 1)]
    # Pooling is linear, so the difference is pooled, once per level.
    difference = student - teacher
    scales = [difference, *(F.adaptive_avg_pool2d(difference, level) for level in used)]
    total = cast(Tensor, sum(w * mean_square(d) for w, d in zip(weights, scales, strict=True)))
    return total / sum(weights)


@full_precision
def ofd(student: Tensor, teacher: Tensor, *, margin: Tensor) -> Tensor:
    """sum of (s - t')^2 where s > t' or t' > 0, t' = max(t, margin): partial L2 (arXiv:1904.01866).

    Overhaul of feature distillation. Maps of equal shape [B, C, H, W] BEFORE the ReLU; margin: [1, C, 1, 1],
    negative, from `ofd_margin`: teacher values below it carry no information, and the student only has to be below too.
    Summed over elements: outer weight 1e-3, halved for every layer before the last.
    """
    _assert_same_shape(student, teacher)
    target = torch.maximum(teacher, margin)
    counts = (student > target) | (target > 0)
    return ((student - target).square() * counts).flatten(1).sum(1)


@full_precision
def ofd_margin(weight: Tensor, bias: Tensor, *, threshold: float = 1e-3) -> Tensor:
    """E[x | x < 0] of each channel [C] after a batch norm, x ~ N(bias, weight^2): the margin of `ofd`.

    If less than `threshold` of the channel is negative, -3 |weight|, as in the original. Computed in float64 with the
    scaled erfc: in float32 both the share below zero and the final difference lose digits where the mean is far from 0.
    """
    mean, sigma = bias.double(), weight.double().abs().clamp_min(torch.finfo(weight.dtype).tiny)
    ratio = mean / sigma
    hazard = (2 / torch.pi) ** 0.5 / torch.special.erfcx(ratio / 2**0.5)  # density(ratio) / share below zero
    margin = torch.where(torch.special.log_ndtr(-ratio) > math.log(threshold), mean - sigma * hazard, -3 * sigma)
    return margin.to(weight.dtype)
