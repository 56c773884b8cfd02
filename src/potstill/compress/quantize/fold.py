"""Folding of BatchNorm into the weights of the convolution or linear layer before it."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.models.inspect.dataflow import Call, Trace, replaced, trace
from potstill.models.inspect.plain_layers import Plain, plain_types


def fold_batchnorm(model: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy of `model` with each BatchNorm folded into the layer before it, where possible.

    A BatchNorm is folded if it is the only reader of the output of a plain convolution or linear layer and both run
    once. Outputs in eval mode are the same up to rounding. In training the folded model has no batch statistics.
    `image` [B, C, H, W] is any input of the right size, used to trace the data flow.
    """
    model = copy.deepcopy(model)
    seen = trace(model, image)
    for before, norm in _pairs(seen):
        batch_norm = cast(_BatchNorm, norm.layer)
        fold_into(cast(Plain, before.layer), batch_norm)
        model = replaced(model, norm.name, _remainder(batch_norm))
    return model


def fold_into(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> None:
    """Change weight and bias of `layer` in place so that it computes `norm(layer(x))` in eval mode."""
    assert norm.running_var is not None and norm.running_mean is not None, "checked by _foldable"
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * gain
    if norm.affine:
        gain, shift = gain * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.double()
    shape = (-1, *[1] * (layer.weight.dim() - 1))
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter((layer.weight.double() * gain.view(shape)).to(dtype).detach())
    layer.bias = nn.Parameter((bias * gain + shift).to(dtype).detach())


def _pairs(seen: Trace) -> list[tuple[Call, Call]]:
    plain, repeated = plain_types(), seen.repeated()
    pairs = []
    for before in seen.calls:
        if type(before.layer) not in plain or before.name in repeated:
            continue
        norm = seen.sole_user(before.outputs[0])
        if norm and isinstance(norm.layer, _BatchNorm) and norm.name not in repeated and _foldable(norm.layer):
            pairs.append((before, norm))
    return pairs


def _foldable(norm: _BatchNorm) -> bool:
    return norm.running_mean is not None and type(norm) in (*_bare_types(), *_types_with_activation())


def _bare_types() -> tuple[type[nn.Module], ...]:
    return (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def _types_with_activation() -> tuple[type[nn.Module], ...]:
    # Imported here, because timm takes seconds to import; it re-exports the name.
    from timm.layers import BatchNormAct2d  # pyright: ignore[reportPrivateImportUsage]

    return (BatchNormAct2d,)


def _remainder(norm: _BatchNorm) -> nn.Module:
    if type(norm) in _bare_types():
        return nn.Identity()
    return nn.Sequential(cast(nn.Module, norm.drop), cast(nn.Module, norm.act))
