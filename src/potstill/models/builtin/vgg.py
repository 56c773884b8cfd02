"""Networks in the style of VGG (arXiv:1409.1556) with BatchNorm: 3x3 convolutions, halved five times, one dense layer.

Module names inside `features` are those of torchvision's `vgg16_bn`, whose convolutions load.
"""

from __future__ import annotations

import math

from torch import nn

from potstill.models.builtin.init import he

STAGES = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage. Depth 8 has five, and one dense layer instead of three."""
WIDTHS = (1, 2, 4, 8, 8)
"""Channels of a stage, times `width`."""


def vgg(num_classes: int, channels: int, size: tuple[int, int], *, depth: int, width: int = 64) -> nn.Module:
    """Return the network with `width` to 8 x `width` channels; 14.7 M parameters for depth 16 and ten classes.

    As usual for small images, a global average pool and one dense layer replace the three dense layers, which had 124
    of the 138 M parameters. Maps are halved after each stage while they are larger than one pixel.
    """
    halvings = min(len(WIDTHS), int(math.log2(min(size))))
    layers: list[nn.Module] = []
    inputs = channels
    for number, (count, factor) in enumerate(zip(STAGES[depth], WIDTHS, strict=True)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width * factor, 3, padding=1), nn.BatchNorm2d(width * factor), nn.ReLU()]
            inputs = width * factor
        layers += [nn.MaxPool2d(2)] if number < halvings else []
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(*layers))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(inputs, num_classes))
    return he(network)
