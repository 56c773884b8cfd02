"""Unstructured and N:M magnitude pruning: weights are set to zero instead of removing channels.

The zeros make a file smaller only if it is compressed, and the supported runtimes multiply by them as by any other
number, so inference is not faster. Masks are parametrizations of the weights, so they hold during training;
`finalized` removes them.
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
    """Multiplies a weight by a mask of zeros and ones."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


HONEST = "Pruned weights are stored as zeros: the file is smaller only when compressed, and inference is not faster."


def unstructured(
    model: nn.Module, *, sparsity: float, scope: Literal["global", "layer"] = "global", skip: Collection[str] = ()
) -> nn.Module:
    """Return a copy whose smallest weights are masked to zero; `sparsity` is their fraction, between 0 and 1.

    "global" compares the weights of all layers, "layer" prunes the same fraction in each. `skip`: layers kept dense.
    """
    if not 0 < sparsity < 1:
        raise ConfigError(
            f"sparsity must be between 0 and 1 (the fraction of weights set to zero), but is {sparsity:g}."
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
    """Return a copy that keeps the `n` largest of every `m` weights along the input channels (arXiv:2104.08378).

    Layers whose input channels are not a multiple of `m` stay dense, with a note.
    """
    if not 0 < n < m:
        raise ConfigError(f"N:M pruning keeps n of every m weights, so 0 < n < m; but n is {n} and m is {m}.")
    model = copy.deepcopy(model)
    for name, layer in plain_layers(model).items():
        if name in skip:
            continue
        if layer.weight.shape[1] % m:
            note(f"The layer {name} stays dense: its {layer.weight.shape[1]} input channels are no multiple of {m}.")
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
    """Return a copy with the masks applied permanently: an ordinary model whose weights contain zeros."""
    model = copy.deepcopy(model)
    settle_weights(model)
    return model


def sparsity_of(model: nn.Module) -> float:
    """Return the fraction of zeros among the weights of convolutions and linear layers."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    return sum((weight == 0).sum().item() for weight in weights) / sum(weight.numel() for weight in weights)
