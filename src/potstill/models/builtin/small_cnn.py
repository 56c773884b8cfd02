"""A student for small devices: depthwise separable convolutions as in MobileNet (arXiv:1704.04861)."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from potstill.models.builtin.init import he


def small_cnn(num_classes: int, channels: int, size: tuple[int, int], *, width: int = 16) -> nn.Module:
    """Return a network of `width` to 8 x `width` channels; 37 k parameters at width 16 and ten classes.

    Maps are halved to about 4 pixels at input size 32 and 7 at 224, so the cost grows slowly with the image size.
    """
    halvings = min(5, max(0, int(math.log2(min(size) / 4))))
    stage = [2 if halvings > position else 1 for position in range(3)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=conv_block(channels, width, stride=2 if halvings > 3 else 1),
        pool=nn.MaxPool2d(2) if halvings > 4 else nn.Identity(),
        stage1=nn.Sequential(separable(width, 2 * width, stage[0])),
        stage2=_two(2 * width, 4 * width, stage[1]),
        stage3=_two(4 * width, 8 * width, stage[2]),
        gap=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(8 * width, num_classes),
    )
    return he(nn.Sequential(layers))


def _two(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(separable(inputs, outputs, stride), separable(outputs, outputs, 1))


def separable(inputs: int, outputs: int, stride: int = 1, *, kernel: int = 3, linear: bool = False) -> nn.Module:
    """Return a depthwise and a 1x1 convolution, each with BatchNorm and ReLU; if `linear`, only the second has them."""
    depthwise: nn.Module = (
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False)
        if linear
        else conv_block(inputs, inputs, kernel=kernel, stride=stride, groups=inputs)
    )
    pointwise = conv_block(inputs, outputs, kernel=1)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def conv_block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution with BatchNorm and ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        bn=nn.BatchNorm2d(outputs),
        act=nn.ReLU(),
    )
    return nn.Sequential(layers)
