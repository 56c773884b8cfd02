"""Sensitivity of layers to pruning: each group of channels is pruned separately."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from potstill.compress.prune.groups import channel_groups
from potstill.compress.prune.importance import Importance, scores
from potstill.compress.prune.inner import best_channels, rounded
from potstill.compress.prune.surgery import keep_channels
from potstill.models.inspect.dataflow import trace


def sensitivity(
    model: nn.Module,
    image: Tensor,
    loss: Callable[[nn.Module], float],
    *,
    shares: Sequence[float] = (0.25, 0.5, 0.75),
    importance: Importance = "l1",
) -> dict[str, dict[float, float]]:
    """Return the increase of `loss` if a single group keeps each of the fractions `shares` of its channels.

    Groups are named by their first writing layer. `loss` evaluates a model on held-out images.
    """
    start = loss(model)
    rises: dict[str, dict[float, float]] = {}
    for group in channel_groups(trace(model, image)):
        score = scores(model, group, importance)
        for share in shares:
            narrower = copy.deepcopy(model)
            count = rounded(share * group.channels, group, 1)
            keep_channels(narrower, group, best_channels(score, count, group.blocks))
            rises.setdefault(group.writers[0], {})[share] = loss(narrower) - start
    return rises
