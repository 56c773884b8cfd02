"""The smallest student: a multilayer perceptron."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from potstill.models.builtin.init import he


def mlp(num_classes: int, channels: int, size: tuple[int, int], *, hidden: int | Sequence[int] = 25) -> nn.Module:
    """Return pixels -> hidden units -> logits; 19,885 parameters for 28x28 grey, 25 units and ten classes.

    hidden: units of the hidden layer, or of each of several.
    """
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    inputs = channels * size[0] * size[1]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, outputs in enumerate(widths, 1):
        place = "" if number == 1 else str(number)
        layers[f"hidden{place}"] = nn.Linear(inputs, outputs)
        layers[f"act{place}"] = nn.ReLU()
        inputs = outputs
    layers["head"] = nn.Linear(inputs, num_classes)
    return he(nn.Sequential(layers))
