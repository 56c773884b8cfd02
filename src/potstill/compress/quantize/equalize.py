"""Cross-layer equalization: rescale consecutive layers so that each channel has the same weight range in both."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from potstill.models.inspect.dataflow import Call, Trace, trace
from potstill.models.inspect.plain_layers import Plain, plain_types

# f(s * x) = s * f(x) for s > 0, per channel; this does not hold for ReLU6 and hard swish
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

    Pairs of layers are those in which only the second reads the first, through at most ReLU and pooling. BatchNorm must
    be folded. `image` [B, C, H, W] is any input of the right size.
    """
    model = copy.deepcopy(model)
    pairs = _pairs(trace(model, image))
    for _ in range(ROUNDS):
        for first, second in pairs:
            _equalize(first, second)
    return model


def _pairs(seen: Trace) -> list[tuple[Plain, Plain]]:
    repeated = seen.repeated()
    pairs = []
    for call in seen.calls:
        following = _next_layer(seen, call) if _usable(call, repeated) else None
        if following and _usable(following, repeated):
            first, second = cast(Plain, call.layer), cast(Plain, following.layer)
            if _channels_match(first, second):
                pairs.append((first, second))
    return pairs


def _usable(call: Call, repeated: set[str]) -> bool:
    return type(call.layer) in plain_types() and call.name not in repeated


def _next_layer(seen: Trace, call: Call) -> Call | None:
    user = seen.sole_user(call.outputs[0])
    while user and user.operation in HOMOGENEOUS:
        user = seen.sole_user(user.outputs[0])
    return user


def _channels_match(first: Plain, second: Plain) -> bool:
    if isinstance(second, nn.Linear):
        return isinstance(first, nn.Linear)
    return isinstance(first, nn.Conv2d) and second.groups in (1, first.out_channels)


def _equalize(first: Plain, second: Plain) -> None:
    """Rescale each channel so that its largest weight is the same in both layers: their geometric mean."""
    over_inputs = second.weight.detach()
    by_channel = over_inputs if _depthwise(second) else over_inputs.transpose(0, 1)
    above, below = _largest(first.weight.detach()), _largest(by_channel)
    scale = torch.where((above > 0) & (below > 0), (above / below).sqrt(), 1.0)
    with torch.no_grad():
        first.weight /= _along(scale, first.weight, 0)
        if first.bias is not None:
            first.bias.div_(scale)
        second.weight *= _along(scale, second.weight, 0 if _depthwise(second) else 1)


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def _largest(weight: Tensor) -> Tensor:
    return weight.flatten(1).abs().amax(1)


def _along(scale: Tensor, weight: Tensor, dimension: int) -> Tensor:
    shape = [1] * weight.dim()
    shape[dimension] = -1
    return scale.view(shape)
