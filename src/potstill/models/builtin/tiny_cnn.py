"""Students of a thousand to some ten thousand parameters, whose every width is an option."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from potstill.models.builtin.init import he
from potstill.models.builtin.small_cnn import conv_block, separable


def tiny_cnn(
    num_classes: int,
    channels: int,
    size: tuple[int, int],
    *,
    widths: Sequence[int] = (8, 16, 16),
    pool: Sequence[int] = (1, 2),
    kernel: int = 3,
    stem: int = 3,
    stride: int = 1,
    separated: bool | Literal["linear"] = True,
    pooling: Literal["mean", "weighted"] = "mean",
) -> nn.Module:
    """Return a convolution for each of `widths`, a global pool and the head.

    widths: output channels; the first is a plain convolution of the pixels, with a side of `stem` pixels and `stride`;
    the others are depthwise separable if `separated`, else plain, with a side of `kernel` pixels; "linear": without
    BatchNorm and ReLU after the depthwise convolution (as in Xception, arXiv:1610.02357). pool: the numbers of
    the convolutions, from 1, after which maps are halved. pooling: what is left of the image becomes one vector by its
    mean, or with a learned weight of each channel and place (a depthwise convolution as large as the map), which keeps
    where something is. 970 parameters for grey images, ten classes and the defaults.
    """
    side = [-(-length // stride) // 2 ** len(pool) for length in size]
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_block(channels, widths[0], kernel=stem, stride=stride))
    for number, (inputs, outputs) in enumerate(zip((0, *widths), widths, strict=False), 1):
        if number > 1:
            layers[f"block{number}"] = (
                separable(inputs, outputs, kernel=kernel, linear=separated == "linear")
                if separated
                else conv_block(inputs, outputs, kernel=kernel)
            )
        if number in pool:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    if pooling == "weighted":
        layers["place"] = nn.Conv2d(widths[-1], widths[-1], (side[0], side[1]), groups=widths[-1], bias=False)
        layers["bn"] = nn.BatchNorm2d(widths[-1])
    layers["gap"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(widths[-1], num_classes)
    return he(nn.Sequential(layers))
