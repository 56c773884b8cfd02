"""Losses on relations between the samples of a batch: SP, RKD, PKT. Shapes may differ, so no projector is needed.

Student and teacher are features of any shape [B, ...], flattened. The published value is a mean over pairs or triples
of samples; each sample gets the mean over the pairs or triples that start with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.common import full_precision


@full_precision
def sp(student: Tensor, teacher: Tensor, *, eps: float = 1e-12) -> Tensor:
    """sum of (G_t - G_s)^2 / B^2, G = F F^T with each row divided by its L2 norm (arXiv:1907.09682).

    Similarity-preserving distillation; outer weight 3000 on the last map.
    """
    s, t = (F.normalize(f @ f.T, dim=1, eps=eps) for f in (student.flatten(1), teacher.flatten(1)))
    return (t - s).square().mean(1)


@full_precision
def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """distance_weight * `rkd_distance` + angle_weight * `rkd_angle` (relational distillation, arXiv:1904.05068).

    Needs memory for differences [B, B, D]: intended for pooled features.
    """
    return distance_weight * rkd_distance(student, teacher) + angle_weight * rkd_angle(student, teacher)


@full_precision
def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of the distances |e_i - e_j|, divided by their mean over pairs per network; mean over B x B."""
    return F.smooth_l1_loss(_distances(student), _distances(teacher), reduction="none").mean(1)


@full_precision
def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 of the cosines of the angles that samples j, k subtend at sample i; mean over B x B x B."""
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher), reduction="none").mean((1, 2))


def _differences(feature: Tensor) -> Tensor:
    """Return e_j - e_i as [B, B, D]; |a|^2 + |b|^2 - 2ab would cancel."""
    flat = feature.flatten(1)
    return flat.unsqueeze(0) - flat.unsqueeze(1)


def _distances(feature: Tensor) -> Tensor:
    """Return the distances [B, B] divided by their mean over pairs of different samples.

    A pair of equal samples counts as 1e-6 apart, as in the original, and has no gradient.
    """
    count = len(feature)
    apart = ~torch.eye(count, dtype=torch.bool, device=feature.device)
    distance = _differences(feature).square().sum(2).clamp_min(1e-12).sqrt() * apart
    mean = distance.sum() / max(count * (count - 1), 1)
    return distance / mean.clamp_min(1e-6)


def _cosines(feature: Tensor, eps: float = 1e-12) -> Tensor:
    """Return the cosines [B, B, B] of the angle at the first index, 0 where two of the three are equal."""
    difference = _differences(feature)
    norm = difference.norm(dim=2, keepdim=True)
    # Equal samples have no direction; their gradient, which would be of order 1 / eps, is set to 0.
    direction = torch.where(norm > eps, difference / norm.clamp_min(eps), 0)
    return direction @ direction.transpose(1, 2)


@full_precision
def pkt(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """mean over B x B of Q_t log((Q_t + eps) / (Q_s + eps)), Q = rows of (cosine + 1) / 2 that sum to 1.

    Probabilistic knowledge transfer (arXiv:1803.10837); outer weight 30000.
    """
    s, t = _affinities(student, eps), _affinities(teacher, eps)
    return (t * ((t + eps) / (s + eps)).log()).mean(1)


def _affinities(feature: Tensor, eps: float) -> Tensor:
    flat = feature.flatten(1)
    unit = flat / (flat.norm(dim=1, keepdim=True) + eps)
    similarity = (unit @ unit.T + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)
