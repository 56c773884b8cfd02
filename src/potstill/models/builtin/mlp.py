"""The smallest student: a multilayer perceptron with one hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.models.builtin.init import he


def mlp(num_classes: int, channels: int, size: tuple[int, int], *, hidden: int = 25) -> nn.Module:
    """Return pixels -> `hidden` units -> logits; 19,885 parameters for 28x28 grey and ten classes."""
    inputs = channels * size[0] * size[1]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        hidden=nn.Linear(inputs, hidden),
        act=nn.ReLU(),
        head=nn.Linear(hidden, num_classes),
    )
    return he(nn.Sequential(layers))
