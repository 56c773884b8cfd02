"""Zeros instead of fewer channels: unstructured and N:M magnitude pruning.

The zeros make a file smaller only when it is compressed, and the runtimes potstill exports to multiply by them as by
any number: nothing gets faster. Masks hold during training: they are parametrizations of the weights, which
`finalized` takes off again.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from potstill.errors import ConfigError
from potstill.models.inspect.plain_layers import plain_layers, settle_weights
from potstill.progress import note


class Mask(nn.Module):
    """Multiplies a weight by zeros and ones."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


HONEST = "The pruned weights are zeros: the file shrinks only when it is compressed, and the speed does not change."


def unstructured(
    model: nn.Module, *, sparsity: float, scope: Literal["global", "layer"] = "global", skip: Collection[str] = ()
) -> nn.Module:
    """Return a copy whose smallest weights are masked to zero; `sparsity` is their share, between 0 and 1.

    "global" compares the weights of all layers, "layer" takes the same share of each. `skip` names layers left dense.
    """
    if not 0 < sparsity < 1:
        raise ConfigError(
            f"sparsity is {sparsity:g}, but it must lie between 0 and 1: the share of weights set to zero."
        )
    model = copy.deepcopy(model)
    layers = [layer for name, layer in plain_layers(model).items() if name not in skip]
    weights = [layer.weight.detach() for layer in layers]
    if scope == "global":
        together = _largest(torch.cat([weight.flatten() for weight in weights]), sparsity)
        masks = together.split([weight.numel() for weight in weights])
    else:
        masks = [_largest(weight, sparsity) for weight in weights]
    for layer, mask in zip(layers, masks, strict=True):
        parametrize.register_parametrization(layer, "weight", Mask(mask.view_as(layer.weight)))
    note(HONEST)
    return model


def _largest(weight: Tensor, sparsity: float) -> Tensor:
    return prune.L1Unstructured(sparsity).compute_mask(weight, torch.ones_like(weight))


def n_of_m(model: nn.Module, *, n: int = 2, m: int = 4, skip: Collection[str] = ()) -> nn.Module:
    """Return a copy in which of every `m` weights along the input channels the `n` largest remain (arXiv:2104.08378).

    Layers whose inputs are not a multiple of `m` stay dense, and that is told.
    """
    if not 0 < n < m:
        raise ConfigError(f"N:M pruning keeps n of every m weights, so 0 < n < m; n is {n} and m is {m}.")
    model = copy.deepcopy(model)
    for name, layer in plain_layers(model).items():
        if name in skip:
            continue
        if layer.weight.shape[1] % m:
            note(f"The layer {name} reads {layer.weight.shape[1]} channels, no multiple of {m}, and stays dense.")
            continue
        parametrize.register_parametrization(layer, "weight", Mask(n_of_m_mask(layer.weight, n, m)))
    note(HONEST)
    return model


def n_of_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Return 1 for the `n` largest magnitudes of every `m` along dimension 1 of `weight` [O, I, ...], else 0."""
    rows = weight.detach().abs().movedim(1, -1)
    parts = rows.reshape(-1, m)
    mask = torch.zeros_like(parts).scatter_(1, parts.topk(n, dim=1).indices, 1.0)
    return mask.view(rows.shape).movedim(-1, 1)


def finalized(model: nn.Module) -> nn.Module:
    """Return a copy in which the masks are applied for good: an ordinary model whose weights contain zeros."""
    model = copy.deepcopy(model)
    settle_weights(model)
    return model


def sparsity_of(model: nn.Module) -> float:
    """Return the share of zeros among the weights of convolutions and linear layers."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return sum((weight == 0).sum().item() for weight in weights) / sum(weight.numel() for weight in weights)
