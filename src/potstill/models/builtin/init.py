"""One initialisation for all built-in networks, so that a comparison never hinges on a family's habit."""

from __future__ import annotations

from torch import nn


def he(network: nn.Module) -> nn.Module:
    """Initialise convolutions and dense layers as He et al. do (arXiv:1502.01852); return the network.

    Biases start at zero. The last dense layer gives logits, not rectified features, and gets the gain of a linear
    layer. Draws come from the global generator: the caller seeds it.
    """
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for module in weighted:
        last = module is weighted[-1]
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if last else "relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
