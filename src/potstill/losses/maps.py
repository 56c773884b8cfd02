"""Losses on statistics of feature maps [B, C, H, W]: AT, NST, ICKD, FSP."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision, match_size, mean_square


@full_precision
def at(
    student: Tensor,
    teacher: Tensor,
    *,
    variant: Literal["code", "paper"] = "code",
    power: int = 2,
    eps: float = 1e-12,
) -> Tensor:
    """Attention transfer on a = mean over channels of |f|^power, divided by its L2 norm (arXiv:1612.03928).

    "code": mean over positions of (a_s - a_t)^2, as in the authors' code, outer weight 1000. "paper": the norm
    ||a_s - a_t||_2 of equation 2. The larger map is average-pooled to the smaller first; channels may differ.
    """
    s, t = (_attention(f, power, eps) for f in match_size(student, teacher))
    return (s - t).norm(dim=1) if variant == "paper" else (s - t).square().mean(1)


def _attention(feature: Tensor, power: int, eps: float) -> Tensor:
    return F.normalize(feature.abs().pow(power).mean(1).flatten(1), dim=1, eps=eps)


@full_precision
def nst(student: Tensor, teacher: Tensor, *, degree: int = 2, offset: float = 0.0, eps: float = 1e-12) -> Tensor:
    """Squared MMD between the sets of channels, kernel (a . b + offset)^degree (arXiv:1707.01219).

    Neuron selectivity transfer: each channel is a vector over positions with norm 1; mean k(t, t') + mean k(s, s') -
    2 mean k(s, t). The larger map is average-pooled to the smaller first; channels may differ. Outer weight 50.
    """
    s, t = (F.normalize(f.flatten(2), dim=2, eps=eps) for f in match_size(student, teacher))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.transpose(1, 2) + offset).pow(degree).mean((1, 2))

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


@full_precision
def ickd(student: Tensor, teacher: Tensor, *, eps: float = 1e-12) -> Tensor:
    """sum of (G_s - G_t)^2 / C, G = F F^T over channels with rows normalised to norm 1 (ICKD-C, ICCV 2021).

    As in the authors' CIFAR code; their ImageNet code divides by the batch size once more. Equal channel counts
    (after a projector); sizes may differ.
    """
    assert student.shape[1] == teacher.shape[1], "ickd needs equal channels: project the student first"
    s, t = (_channel_gram(f.flatten(2), eps) for f in (student, teacher))
    return (s - t).square().sum((1, 2)) / student.shape[1]


def _channel_gram(flat: Tensor, eps: float) -> Tensor:
    return F.normalize(flat @ flat.transpose(1, 2), dim=2, eps=eps)


@full_precision
def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """sum over consecutive layers of the mean of (G_s - G_t)^2, G = mean over positions of a_c b_d (CVPR 2017).

    Flow of the solution procedure. Lists of maps, shallow to deep, with the same channels layer by layer; the larger
    map of a pair is average-pooled to the smaller. Outer weight 50.
    """
    pairs = zip(pairwise(student), pairwise(teacher), strict=True)
    return torch.stack([mean_square(_flow(*s) - _flow(*t)) for s, t in pairs]).sum(0)


def _flow(first: Tensor, second: Tensor) -> Tensor:
    first, second = match_size(first, second)
    return first.flatten(2) @ second.flatten(2).transpose(1, 2) / first[0, 0].numel()
