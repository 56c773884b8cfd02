"""A loss between features of two networks: bring both to one layout, project the student's, compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from potstill.models.hooks import as_map, as_vector, matched

Layout = Literal["any", "map", "vector"]


class Comparison(nn.Module):
    """Calls `loss(student=..., teacher=..., **given)` with features as it wants them; returns one value a sample [B].

    A loss that takes no teacher is called with the student's features as they are.

    layout: maps [B, C, H, W], vectors [B, C], or whatever the taps say. projectors: one a pair of taps, or none.
    listed: the loss takes lists. same_size: the larger map is averaged to the smaller. channels_first: tokens reach
    the loss as [B, C, N].
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
        self._lay = {"any": lambda f: f, "map": as_map, "vector": as_vector}[layout]
        self._listed, self._same_size, self._channels_first = listed, same_size, channels_first

    def forward(self, student: list[Tensor], teacher: list[Tensor] | None = None, **given: Any) -> Tensor:
        if teacher is None:
            (own,) = student
            return self.loss(student=self._lay(own), **given)
        pairs = [(self._lay(s), self._lay(t)) for s, t in zip(student, teacher, strict=True)]
        if self._same_size:
            pairs = [matched(s, t) for s, t in pairs]
        if len(self.projectors):
            pairs = [project(s, t) for project, (s, t) in zip(self.projectors, pairs, strict=True)]
        if self._channels_first:
            pairs = [(_channels_first(s), _channels_first(t)) for s, t in pairs]
        if self._listed:
            return self.loss(student=[s for s, _ in pairs], teacher=[t for _, t in pairs], **given)
        ((s, t),) = pairs
        return self.loss(student=s, teacher=t, **given)


def _channels_first(features: Tensor) -> Tensor:
    return features.transpose(1, 2) if features.ndim == 3 else features
