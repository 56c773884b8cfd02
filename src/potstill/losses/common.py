"""Shared helpers of the losses: full precision, KL divergence, masking of unlabelled rows, matching of sizes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run `function` in float32, or float64 where an input is float64, also inside autocast.

    Sums of squares over a map, exp() and differences of large numbers overflow or cancel in half precision, so losses
    are never computed in it. Tensors in lists and tuples are converted too; gradients have the dtype of the inputs.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Tensor:
        floats = [t for t in _tensors((*args, *kwargs.values())) if t.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in floats), torch.float32)
        with torch.autocast(floats[0].device.type, enabled=False):
            return function(
                *(_cast(value, dtype) for value in args),
                **{name: _cast(value, dtype) for name, value in kwargs.items()},
            )

    return run


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list | tuple):
        return [_cast(item, dtype) for item in value]
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) [B] from log-probabilities [B, K]; a class with probability 0 in p (-inf) contributes 0."""
    return (log_p.exp() * (log_p.clamp_min(torch.finfo(log_p.dtype).min) - log_q)).sum(-1)


def labelled(values: Tensor, label: Tensor) -> Tensor:
    """Return `values` [B], with 0 and no gradient where the label is negative (-100: unlabelled).

    Uses torch.where, not boolean indexing, which would make the host wait for the device.
    """
    return torch.where(label >= 0, values, 0)


def mean_square(difference: Tensor) -> Tensor:
    """Return the mean of the squares over all but the batch axis: [B, ...] -> [B]."""
    return difference.square().flatten(1).mean(1)


def match_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps [B, C, H, W] average-pooled to the smaller height and width of the two."""
    size = (min(student.shape[-2], teacher.shape[-2]), min(student.shape[-1], teacher.shape[-1]))
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
