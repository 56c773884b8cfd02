"""One initialisation for all built-in networks, so that comparisons do not depend on differences between families."""

from __future__ import annotations

from torch import nn


def he(network: nn.Module) -> nn.Module:
    """Initialise convolutions and dense layers as in He et al. (arXiv:1502.01852); return the network.

    Biases are zero. The last dense layer outputs logits, not rectified features, and gets the gain of a linear layer.
    Random numbers come from the global generator, which the caller seeds.
    """
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for module in weighted:
        last = module is weighted[-1]
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if last else "relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
