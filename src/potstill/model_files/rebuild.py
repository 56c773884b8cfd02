"""Reconstruction of a compressed network from the original network and a compressed state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from potstill.compress.prune.surgery import resized
from potstill.compress.quantize.convert import restored
from potstill.compress.quantize.fold import fold_batchnorm
from potstill.compress.quantize.pack import float_state
from potstill.models.inspect.plain_layers import plain_layers


def rebuilt(network: nn.Module, state: Mapping[str, Tensor], image: Tensor) -> nn.Module:
    """Return a copy of `network`, pruned, folded and quantized like the model of the state dict `state`.

    Everything is inferred from the names and shapes in `state`. `image` [B, C, H, W] is any input of the right size.
    """
    if any(name not in state for name in network.state_dict()):
        network = fold_batchnorm(network, image)
    values = float_state(state)
    for name, layer in plain_layers(network).items():
        bias = f"{name}.bias" if name else "bias"
        if layer.bias is None and bias in values:  # bias correction adds them
            layer.bias = nn.Parameter(torch.zeros_like(values[bias]))
    network = resized(network, values)
    return network if len(values) == len(state) else restored(network, state)
