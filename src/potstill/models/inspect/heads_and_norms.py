"""What feature losses have to find in a network: its classifier, the batch norm and the values before a ReLU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import Seen, Trace

RELU = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)


def last_linear(seen: Trace) -> tuple[Tensor, Tensor]:
    """Return weight [K, D] and bias [K] of the layer that gives the logits."""
    layer = seen.head.module
    bias = torch.zeros(len(layer.weight), device=layer.weight.device) if layer.bias is None else layer.bias
    return layer.weight.flatten(1), bias


def before_relu(seen: Trace, tap: Tap) -> Tap:
    """Return the place before the ReLU that a tap's module ends with; the tap itself where it ends with none.

    Poolings and dropouts behind the ReLU are passed over. The name tells the two places apart.
    """
    relu = _final_relu(seen, tap)
    if relu is None or relu.fed is None:
        return tap
    kind, shape, channels_last = seen.layout(relu.fed)
    return Tap(f"{tap.name}, before its ReLU", relu.path, "input", kind, shape, channels_last, relu.fed_overwritten)


def batch_norm_before(seen: Trace, tap: Tap) -> nn.BatchNorm2d | None:
    """Return the last batch norm of as many channels that ran before a tap; None where there is none."""
    moment = _moment(seen, tap)
    norms = [s.module for s in seen.seen if s.end <= moment and isinstance(s.module, nn.BatchNorm2d)]
    return next((norm for norm in reversed(norms) if norm.num_features == tap.shape[0]), None)


def _moment(seen: Trace, tap: Tap) -> int:
    at = seen.by_path[tap.path]
    return at.start if tap.at == "input" else at.end


def _final_relu(seen: Trace, tap: Tap) -> Seen | None:
    """Return the ReLU after which a tap's module has no more weights."""
    moment = _moment(seen, tap)
    for s in reversed([s for s in seen.seen if s.end <= moment]):
        if isinstance(s.module, RELU):
            return s
        if s.weighted:
            return None
    return None
