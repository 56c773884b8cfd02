"""A loss between features of two networks: convert both to one layout, project the student's, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from potstill.models.hooks import as_map, as_vector, matched

Layout = Literal["any", "map", "vector"]


class Comparison(nn.Module):
    """Calls `loss(student=..., teacher=..., **more)` with features in its layout; returns one value per sample [B].

    A loss without teacher is called with the student's features only.

    layout: maps [B, C, H, W], vectors [B, C], or as the taps return them ("any"). projectors: one per pair of taps, or
    none. listed: the loss takes lists. same_size: the larger map is averaged to the size of the smaller one.
    channels_first: tokens are passed as [B, C, N].
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        *,
        layout: Layout = "any",
        projectors: Sequence[nn.Module] = (),
        listed: bool = False,
        same_size: bool = False,
        channels_first: bool = False,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.projectors = nn.ModuleList(projectors)
        self._layout = {"any": lambda f: f, "map": as_map, "vector": as_vector}[layout]
        self._listed, self._same_size, self._channels_first = listed, same_size, channels_first

    def forward(self, student: list[Tensor], teacher: list[Tensor] | None = None, **more: Any) -> Tensor:
        if teacher is None:
            (own,) = student
            return self.loss(student=self._layout(own), **more)
        pairs = [(self._layout(s), self._layout(t)) for s, t in zip(student, teacher, strict=True)]
        if self._same_size:
            pairs = [matched(s, t) for s, t in pairs]
        if len(self.projectors):
            pairs = [project(s, t) for project, (s, t) in zip(self.projectors, pairs, strict=True)]
        if self._channels_first:
            pairs = [(_channels_first(s), _channels_first(t)) for s, t in pairs]
        if self._listed:
            return self.loss(student=[s for s, _ in pairs], teacher=[t for _, t in pairs], **more)
        ((s, t),) = pairs
        return self.loss(student=s, teacher=t, **more)


def _channels_first(features: Tensor) -> Tensor:
    return features.transpose(1, 2) if features.ndim == 3 else features
