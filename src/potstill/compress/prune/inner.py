"""Structured pruning of the channels inside blocks, down to a share of the multiply-accumulates or parameters."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from potstill.compress.prune.groups import Group, channel_groups
from potstill.compress.prune.importance import IMPORTANCE, Importance, scores
from potstill.compress.prune.surgery import keep_channels
from potstill.errors import ConfigError, ModelError, did_you_mean
from potstill.models.inspect.dataflow import trace
from potstill.models.inspect.macs import cost

Scope = Literal["layer", "global"]
Measure = Literal["macs", "params"]
SEARCH_STEPS = 12


def inner_channels(
    model: nn.Module,
    image: Tensor,
    *,
    keep: float,
    of: Measure = "macs",
    importance: Importance = "l1",
    scope: Scope = "layer",
    round_to: int = 1,
) -> nn.Module:
    """Return a copy of `model` with the least important channels removed from inside its blocks.

    Channels of residual sums, concatenations and outputs stay. The most channels are kept for which the pruned model
    has at most the share `keep` of the multiply-accumulates (or parameters). Weights that remain are not changed:
    re-estimate BatchNorm and train on.

    Args:
        image: any input [B, C, H, W] of the right size.
        keep: between 0 and 1.
        importance: see `importance.scores`.
        scope: "layer" removes the same share everywhere; "global" compares channels of all layers, each score
            relative to the mean of its layer.
        round_to: widths become multiples of this (where the layer is that wide).

    Raises:
        ConfigError: a setting out of range.
        ModelError: no channel can be removed, or the share cannot be reached by removing inner channels.
    """
    _check(keep, importance, scope, of, round_to)
    groups = channel_groups(trace(model, image))
    if not groups:
        raise ModelError(
            f"{type(model).__name__} has no inner channels that can be removed without changing its outputs."
        )
    judged = [scores(model, group, importance) for group in groups]
    whole = _measure(model, image, of)

    def pruned_to(share: float) -> nn.Module:
        smaller = copy.deepcopy(model)
        for group, score, count in zip(groups, judged, _counts(groups, judged, share, scope, round_to), strict=True):
            keep_channels(smaller, group, best_channels(score, count, group.blocks))
        return smaller

    low, high = 0.0, 1.0
    best = pruned_to(low)
    if (least := _measure(best, image, of) / whole) > keep:
        raise ModelError(
            f"Removing inner channels leaves at least {least:.1%} of the {of} of {type(model).__name__}, more than "
            f"keep={keep:g} asks for. Choose a larger keep, a smaller round_to, or prune with torch-pruning."
        )
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        smaller = pruned_to(middle)
        if _measure(smaller, image, of) <= keep * whole:
            low, best = middle, smaller
        else:
            high = middle
    return best


def best_channels(score: Tensor, count: int, blocks: int) -> Tensor:
    """Return the numbers of the `count` best channels, sorted; as many from each of `blocks` equal parts."""
    parts = score.view(blocks, -1)
    chosen = parts.topk(count // blocks, dim=1).indices
    offset = torch.arange(blocks, device=score.device)[:, None] * parts.shape[1]
    return (chosen + offset).flatten().sort().values


def _counts(groups: list[Group], judged: list[Tensor], share: float, scope: Scope, round_to: int) -> list[int]:
    """Return how many channels each group keeps when about `share` of all are kept."""
    if scope == "layer":
        wanted = [share * group.channels for group in groups]
    else:
        relative = [score / score.mean().clamp(min=torch.finfo(score.dtype).tiny) for score in judged]
        threshold = torch.cat(relative).quantile(1 - share)
        wanted = [(score >= threshold).sum().item() for score in relative]
    return [rounded(count, group, round_to) for count, group in zip(wanted, groups, strict=True)]


def rounded(count: float, group: Group, round_to: int) -> int:
    """Return the width nearest to `count` that the group can have, a multiple of `round_to`, never 0."""
    unit = math.lcm(round_to, group.blocks)
    if unit >= group.channels:
        return group.channels
    return min(max(unit, round(count / unit) * unit), group.channels)


def _measure(model: nn.Module, image: Tensor, of: Measure) -> int:
    counted = cost(model, image)
    return counted.total_macs if of == "macs" else counted.params


def _check(keep: float, importance: str, scope: str, of: str, round_to: int) -> None:
    problems = []
    if not 0 < keep < 1:
        problems.append(f"keep is {keep:g}, but it must lie between 0 and 1: the share of the {of} that remains.")
    if round_to < 1:
        problems.append(f"round_to is {round_to}, but widths are rounded to multiples of 1 or more.")
    for key, value, known in [
        ("importance", importance, tuple(IMPORTANCE)),
        ("scope", scope, ("layer", "global")),
        ("of", of, ("macs", "params")),
    ]:
        if value not in known:
            problems.append(f"{key} is one of {', '.join(known)}, not '{value}'.{did_you_mean(value, known)}")
    if problems:
        raise ConfigError(*problems)
