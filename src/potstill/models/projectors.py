"""Projectors between student and teacher features: layers inferred from two shapes, trained, and not exported.

A projector takes both features, because the spatially larger one is pooled to the smaller: downsampling keeps what the
student can match, while upsampling would invent detail.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.hooks import as_map, as_vector, extra_tokens, matched

Shape = tuple[int, ...]


def projector(student: Shape, teacher: Shape) -> nn.Module:
    """Return a module `(student features, teacher features) -> (projected, target)` of equal shapes.

    student, teacher: shapes of taps without the batch: (C, H, W) a map, (N, C) tokens, (C,) a vector.
    Maps get a 1x1 convolution and BatchNorm (FitNets, arXiv:1412.6550), tokens and vectors a linear layer. If only
    one side is a map, the other side's tokens are arranged in a square; if one is a vector, the other is pooled.
    """
    kinds = {len(student), len(teacher)}
    assert kinds <= {1, 2, 3}, f"unsupported feature shapes {student} and {teacher}"
    if 1 in kinds:
        return VectorProjector(channels(student), channels(teacher))
    if kinds == {2}:
        return TokenProjector(channels(student), channels(teacher))
    return MapProjector(channels(student), channels(teacher))


def channels(shape: Shape) -> int:
    """Return the number of channels of a feature shape."""
    return shape[1] if len(shape) == 2 else shape[0]


class MapProjector(nn.Module):
    """Maps, or a map and tokens -> two maps [B, C_teacher, H, W] at the smaller height and width."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student, teacher, 1, bias=False)
        self.bn = nn.BatchNorm2d(teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student, teacher = matched(as_map(student), as_map(teacher))
        return self.bn(self.conv(student)), teacher


class TokenProjector(nn.Module):
    """Tokens -> two sequences [B, N, C_teacher] on the smaller grid; with class tokens if both have them."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        student, teacher = matched_tokens(student, teacher)
        return self.linear(student), teacher


class VectorProjector(nn.Module):
    """Two vectors, or anything and a vector -> two vectors [B, C_teacher]."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student, teacher)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(as_vector(student)), as_vector(teacher)


def matched_tokens(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return two token sequences on the smaller of their square grids, preceded by the extra tokens that both have."""
    extra = min(extra_tokens(first.shape[1]), extra_tokens(second.shape[1]))
    side = min(math.isqrt(first.shape[1]), math.isqrt(second.shape[1]))
    return _on_grid(first, extra, side), _on_grid(second, extra, side)


def _on_grid(tokens: Tensor, extra: int, side: int) -> Tensor:
    grid = as_map(tokens)
    if grid.shape[-1] != side:
        grid = F.interpolate(grid, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return torch.cat([tokens[:, :extra], grid.flatten(2).transpose(1, 2)], 1)
