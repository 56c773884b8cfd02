"""Structured pruning of channels inside blocks, to a fraction of the multiply-accumulates or parameters."""

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
    """Return a copy of `model` with the least important channels inside its blocks removed.

    Channels of residual sums, concatenations and outputs are kept. As many channels are kept as possible such that the
    pruned model has at most the fraction `keep` of the multiply-accumulates (or parameters). The remaining weights are
    unchanged: re-estimate BatchNorm statistics and continue training.

    Args:
        image: any input [B, C, H, W] of the right size.
        keep: fraction to keep, between 0 and 1.
        importance: see `importance.scores`.
        scope: "layer" removes the same fraction in each layer; "global" compares channels of all layers, each score
            relative to the mean of its layer.
        round_to: widths are rounded to multiples of this (if the layer is wide enough).

    Raises:
        ConfigError: a setting out of range.
        ModelError: no channel can be removed, or the fraction cannot be reached by removing inner channels.
    """
    _check(keep, importance, scope, of, round_to)
    groups = channel_groups(trace(model, image))
    if not groups:
        raise ModelError(
            f"{type(model).__name__} has no inner channels that can be pruned: all are part of residual sums, "
            "concatenations or outputs."
        )
    group_scores = [scores(model, group, importance) for group in groups]
    whole = _measure(model, image, of)

    def pruned_to(share: float) -> nn.Module:
        smaller = copy.deepcopy(model)
        counts = _counts(groups, group_scores, share, scope, round_to)
        for group, score, count in zip(groups, group_scores, counts, strict=True):
            keep_channels(smaller, group, best_channels(score, count, group.blocks))
        return smaller

    low, high = 0.0, 1.0
    best = pruned_to(low)
    if (least := _measure(best, image, of) / whole) > keep:
        raise ModelError(
            f"Pruning inner channels keeps at least {least:.1%} of the {of} of {type(model).__name__}, more than "
            f"keep={keep:g}. Choose a larger keep, a smaller round_to, or prune with torch-pruning."
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
    """Return the sorted indices of the `count` most important channels, equally many from each of `blocks` parts."""
    parts = score.view(blocks, -1)
    chosen = parts.topk(count // blocks, dim=1).indices
    offset = torch.arange(blocks, device=score.device)[:, None] * parts.shape[1]
    return (chosen + offset).flatten().sort().values


def _counts(groups: list[Group], group_scores: list[Tensor], share: float, scope: Scope, round_to: int) -> list[int]:
    """Return the number of channels that each group keeps if about `share` of all are kept."""
    if scope == "layer":
        wanted = [share * group.channels for group in groups]
    else:
        relative = [score / score.mean().clamp(min=torch.finfo(score.dtype).tiny) for score in group_scores]
        threshold = torch.cat(relative).quantile(1 - share)
        wanted = [(score >= threshold).sum().item() for score in relative]
    return [rounded(count, group, round_to) for count, group in zip(wanted, groups, strict=True)]


def rounded(count: float, group: Group, round_to: int) -> int:
    """Return the valid width of a group nearest to `count`: a multiple of `round_to`, never 0."""
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
        problems.append(f"keep must be between 0 and 1 (the fraction of the {of} to keep), but is {keep:g}.")
    if round_to < 1:
        problems.append(f"round_to must be at least 1, but is {round_to}.")
    for key, value, known in [
        ("importance", importance, tuple(IMPORTANCE)),
        ("scope", scope, ("layer", "global")),
        ("of", of, ("macs", "params")),
    ]:
        if value not in known:
            problems.append(f"{key} must be one of {', '.join(known)}, not '{value}'.{did_you_mean(value, known)}")
    if problems:
        raise ConfigError(*problems)
