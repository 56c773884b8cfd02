"""A teacher that trains on a laptop: three convolutions and a wide dense layer.

At 28x28 nearly all of its 1.4 M parameters are in the dense layer, where they need few multiplications: 9 M per
image, so ten epochs of MNIST take minutes on two cores.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.models.builtin.init import he


def cnn(
    num_classes: int, channels: int, size: tuple[int, int], *, hidden: int = 1152, dropout: float = 0.5
) -> nn.Module:
    """Return three blocks (convolution, BatchNorm, ReLU, max pooling), a dense layer and the head.

    Sides must be at least 8 pixels, because they are halved three times. Larger maps are pooled to about 3x3.
    """
    height, width = size[0] // 8, size[1] // 8
    pool = (max(1, height // 3), max(1, width // 3))
    features = 128 * (height // pool[0]) * (width // pool[1])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        block1=_block(channels, 32, kernel=5),
        block2=_block(32, 64, kernel=3),
        block3=_block(64, 128, kernel=3),
        pool=nn.AvgPool2d(pool),
        flatten=nn.Flatten(),
        hidden=nn.Linear(features, hidden),
        act=nn.ReLU(),
        dropout=nn.Dropout(dropout),
        head=nn.Linear(hidden, num_classes),
    )
    return he(nn.Sequential(layers))


def _block(inputs: int, outputs: int, *, kernel: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        bn=nn.BatchNorm2d(outputs),
        act=nn.ReLU(),
        halve=nn.MaxPool2d(2),
    )
    return nn.Sequential(layers)
