"""Intermediate features of a network by hooks, without changing the network.

For every model family, features are returned in one of three layouts: a map [B, C, H, W], tokens [B, N, C] (class
tokens first), or a vector [B, C].
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["map", "tokens", "vector"]


@dataclass(frozen=True)
class Tap:
    """A place in a network whose features are collected, under the name used in the configuration.

    path: of a module; `at` its output or its input. shape: without the batch, (C, H, W), (N, C) or (C,) by `kind`.
    channels_last: the module uses [B, H, W, C]. copy: a later layer overwrites the tensor in place.
    """

    name: str
    path: str
    at: Literal["input", "output"] = "output"
    kind: Kind = "map"
    shape: tuple[int, ...] = ()
    channels_last: bool = False
    copy: bool = False

    def laid_out(self, features: Tensor) -> Tensor:
        """Return the features in the layout of `kind`."""
        features = features.clone() if self.copy else features
        if self.channels_last:
            features = features.permute(0, 3, 1, 2)
        return as_vector(features) if self.kind == "vector" else features


class Taps:
    """Collects the features of some taps inside a `with` block; the hooks are removed afterwards.

    >>> with Taps(network, taps) as open_taps:
    ...     network(image)
    >>> open_taps.collected["stage:-1"]
    """

    def __init__(self, network: nn.Module, taps: Iterable[Tap]) -> None:
        self.collected: dict[str, Tensor] = {}
        self._handles = [self._hook(network.get_submodule(tap.path), tap) for tap in taps]

    def _hook(self, module: nn.Module, tap: Tap):
        if tap.at == "input":
            return module.register_forward_pre_hook(lambda _, inputs: self._keep(tap, inputs[0]))
        return module.register_forward_hook(lambda _, inputs, output: self._keep(tap, cast(Tensor, output)))

    def _keep(self, tap: Tap, features: Tensor) -> None:
        self.collected[tap.name] = tap.laid_out(features)

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()


def as_vector(features: Tensor) -> Tensor:
    """Return features [B, C]: maps are averaged over pixels; of tokens the class token, or else the mean."""
    if features.ndim == 4:
        return features.mean((2, 3))
    if features.ndim == 3:
        extra = extra_tokens(features.shape[1])
        return features[:, 0] if extra else features.mean(1)
    return features


def as_map(features: Tensor) -> Tensor:
    """Return features [B, C, H, W]: tokens are arranged in a square, without class tokens; a vector is one pixel."""
    if features.ndim == 3:
        side = math.isqrt(features.shape[1])
        grid = features[:, extra_tokens(features.shape[1]) :]
        return grid.transpose(1, 2).unflatten(2, (side, side))
    return features[:, :, None, None] if features.ndim == 2 else features


def extra_tokens(count: int) -> int:
    """Return the number of tokens outside the square grid: class, distillation, register tokens."""
    return count - math.isqrt(count) ** 2


def matched(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return two maps at the smaller height and width of the two; the larger one is averaged."""
    size = (min(first.shape[-2], second.shape[-2]), min(first.shape[-1], second.shape[-1]))
    return _pooled(first, size), _pooled(second, size)


def _pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if features.shape[-2:] == size else F.adaptive_avg_pool2d(features, size)
