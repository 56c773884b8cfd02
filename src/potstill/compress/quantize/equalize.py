"""Neighbouring layers share the range of a channel: scale one up and the other down until both round alike."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from potstill.models.inspect.dataflow import Call, Trace, trace
from potstill.models.inspect.plain_layers import plain_types

# for s > 0, f(s * x) = s * f(x), each channel for itself; ReLU6 and hard swish are not like that
HOMOGENEOUS = {
    "aten.relu",
    "aten.relu_",
    "aten.max_pool2d_with_indices",
    "aten.avg_pool2d",
    "aten._adaptive_avg_pool2d",
}
ROUNDS = 10


def equalize(model: nn.Module, image: Tensor) -> nn.Module:
    """Return a copy of `model` with cross-layer equalized weights (arXiv:1906.04721) and the same outputs.

    Pairs of layers are found where the second alone reads the first, through ReLU and pooling at most. BatchNorm must
    be folded. `image` [B, C, H, W] is any input of the right size.
    """
    model = copy.deepcopy(model)
    pairs = _pairs(trace(model, image))
    for _ in range(ROUNDS):
        for first, second in pairs:
            _equalize(first, second)
    return model


def _pairs(seen: Trace) -> list[tuple[nn.Module, nn.Module]]:
    repeated = seen.repeated()
    pairs = []
    for first in seen.calls:
        second = _next_layer(seen, first) if _usable(first, repeated) else None
        if second and _usable(second, repeated) and _channels_match(first.layer, second.layer):
            pairs.append((first.layer, second.layer))
    return pairs


def _usable(call: Call, repeated: set[str]) -> bool:
    return type(call.layer) in plain_types() and call.name not in repeated


def _next_layer(seen: Trace, call: Call) -> Call | None:
    user = seen.sole_user(call.outputs[0])
    while user and user.operation in HOMOGENEOUS:
        user = seen.sole_user(user.outputs[0])
    return user


def _channels_match(first: nn.Module, second: nn.Module) -> bool:
    if isinstance(second, nn.Linear):
        return isinstance(first, nn.Linear)
    return isinstance(first, nn.Conv2d) and second.groups in (1, first.out_channels)


def _equalize(first: nn.Module, second: nn.Module) -> None:
    """Give each channel between the two the same largest weight on both sides, the geometric mean of the two."""
    over_inputs = second.weight.detach()
    by_channel = over_inputs if _depthwise(second) else over_inputs.transpose(0, 1)
    above, below = _largest(first.weight.detach()), _largest(by_channel)
    scale = torch.where((above > 0) & (below > 0), (above / below).sqrt(), 1.0)
    with torch.no_grad():
        first.weight /= _along(scale, first.weight, 0)
        if first.bias is not None:
            first.bias /= scale
        second.weight *= _along(scale, second.weight, 0 if _depthwise(second) else 1)


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def _largest(weight: Tensor) -> Tensor:
    return weight.flatten(1).abs().amax(1)


def _along(scale: Tensor, weight: Tensor, dimension: int) -> Tensor:
    shape = [1] * weight.dim()
    shape[dimension] = -1
    return scale.view(shape)
