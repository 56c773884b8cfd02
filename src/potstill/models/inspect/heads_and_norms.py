"""Parts of a network that feature losses need: its classifier, the batch norm and the values before a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import ModuleCall, Trace

RELU = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)


def last_linear(seen: Trace) -> tuple[Tensor, Tensor]:
    """Return weight [K, D] and bias [K] of the layer that outputs the logits."""
    layer = seen.head.module
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    bias = torch.zeros(len(layer.weight), device=layer.weight.device) if layer.bias is None else layer.bias
    return layer.weight.flatten(1), bias


def before_relu(seen: Trace, tap: Tap) -> Tap:
    """Return a tap before the final ReLU of a tap's module; the tap itself if the module does not end with a ReLU.

    Pooling and dropout after the ReLU are skipped. The new tap has another name.
    """
    relu = _final_relu(seen, tap)
    layout = None if relu is None or relu.input_shape is None else seen.layout(relu.input_shape)
    if relu is None or layout is None:
        return tap
    kind, shape, channels_last = layout
    return Tap(f"{tap.name}, before its ReLU", relu.path, "input", kind, shape, channels_last, relu.input_overwritten)


def batch_norm_before(seen: Trace, tap: Tap) -> nn.BatchNorm2d | None:
    """Return the last batch norm with the channels of a tap that ran before it; None if there is none."""
    moment = _moment(seen, tap)
    norms = [s.module for s in seen.seen if s.end <= moment and isinstance(s.module, nn.BatchNorm2d)]
    return next((norm for norm in reversed(norms) if norm.num_features == tap.shape[0]), None)


def _moment(seen: Trace, tap: Tap) -> int:
    at = seen.by_path[tap.path]
    return at.start if tap.at == "input" else at.end


def _final_relu(seen: Trace, tap: Tap) -> ModuleCall | None:
    """Return the ReLU after which a tap's module has no more layers with weights."""
    moment = _moment(seen, tap)
    for s in reversed([s for s in seen.seen if s.end <= moment]):
        if isinstance(s.module, RELU):
            return s
        if s.weighted:
            return None
    return None
