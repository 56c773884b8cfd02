"""Losses with small networks as projectors: ReviewKD's fusion of layers and SimKD's bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses.common import match_size
from potstill.losses.features import feature_mse, hcl
from potstill.losses.spec import Site


class Fusion(nn.Module):
    """One layer of ReviewKD: the student's map, fused with the map of the deeper layers by learned attention."""

    def __init__(self, channels: int, width: int, out_channels: int, *, deepest: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attention = None if deepest else nn.Conv2d(2 * width, 2, 1)
        self.widen = nn.Sequential(
            nn.Conv2d(width, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )

    def forward(self, feature: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return (map for the next shallower layer, map to compare with the teacher's) at `size`."""
        fused = self.narrow(feature)
        if self.attention is not None:
            assert deeper is not None, "only the deepest layer has no deeper map"
            deeper = F.interpolate(deeper, fused.shape[-2:], mode="nearest")
            share = torch.sigmoid(self.attention(torch.cat([fused, deeper], 1)))
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        fused = F.interpolate(fused, size, mode="nearest")
        return fused, self.widen(fused)


class ReviewKD(nn.Module):
    """Fusion from deep to shallow, then `hcl` on every layer (Chen et al., arXiv:2104.09044).

    student_channels, teacher_channels: channels of the tapped maps, shallow to deep. width: channels of the fusion,
    by default at most 512 as published. Outer weight 1..8 with a warm-up over 20 epochs.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], *, width: int | None = None
    ) -> None:
        super().__init__()
        width = min(512, student_channels[-1]) if width is None else width
        last = len(student_channels) - 1
        self.fusions = nn.ModuleList(
            Fusion(s, width, t, deepest=layer == last)
            for layer, (s, t) in enumerate(zip(student_channels, teacher_channels, strict=True))
        )

    @classmethod
    def at(cls, site: Site, **options: Any) -> ReviewKD:
        """Return the loss for the channels of all places, shallow to deep."""
        return cls(site.student_channels, site.teacher_channels, **options)

    def fused(self, student: Sequence[Tensor], sizes: Sequence[torch.Size]) -> list[Tensor]:
        """Return the student's maps with the teacher's channels and sizes, shallow to deep."""
        deeper, maps = None, []
        for fusion, feature, size in reversed(list(zip(self.fusions, student, sizes, strict=True))):
            deeper, fused = fusion(feature, deeper, size)
            maps.append(fused)
        return maps[::-1]

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return one value per sample [B] from lists of maps [B, C, H, W], shallow to deep."""
        return hcl(self.fused(student, [t.shape[-2:] for t in teacher]), teacher)


class SimKD(nn.Module):
    """The student's last map, projected into the teacher's feature space and compared there (arXiv:2203.14001).

    The only loss of the method: no labels, no logits. The deployed model is student + this projector + the teacher's
    classifier, so all figures include its parameters. factor: reduction of the bottleneck.
    """

    def __init__(self, student_channels: int, teacher_channels: int, *, factor: int = 2) -> None:
        super().__init__()
        width = teacher_channels // factor
        steps = ((student_channels, width, 1), (width, width, 3), (width, teacher_channels, 1))
        self.projector = nn.Sequential(
            *(
                module
                for inside, outside, kernel in steps
                for module in (
                    nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(outside),
                    nn.ReLU(),
                )
            )
        )

    @property
    def extra_parameters(self) -> int:
        """The number of parameters that the projector adds to the deployed student."""
        return sum(parameter.numel() for parameter in self.projector.parameters())

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return one value per sample [B] from maps [B, C, H, W]; the larger is average-pooled to the smaller."""
        student, teacher = match_size(student, teacher)
        return feature_mse(self.projector(student), teacher)
