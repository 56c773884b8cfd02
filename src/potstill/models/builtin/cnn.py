"""A teacher that a laptop trains: three convolutions and a wide dense layer.

At 28x28 nearly all of its 1.4 M parameters sit in the dense layer, where they cost few multiplications: one
image takes 9 M of them, so ten epochs of MNIST are minutes on two cores.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from potstill.models.builtin.init import he


def cnn(
    num_classes: int, channels: int, size: tuple[int, int], *, hidden: int = 1152, dropout: float = 0.5
) -> nn.Module:
    """Return three blocks (convolution, BatchNorm, ReLU, halving), a dense layer and the logits.

    Sides below 8 pixels do not survive three halvings. What is left of a big image is pooled to about 3x3.
    """
    side = [length // 8 for length in size]
    pool = tuple(max(1, length // 3) for length in side)
    left = [length // step for length, step in zip(side, pool, strict=True)]
    layers = OrderedDict(
        block1=_block(channels, 32, kernel=5),
        block2=_block(32, 64, kernel=3),
        block3=_block(64, 128, kernel=3),
        pool=nn.AvgPool2d(pool),
        flatten=nn.Flatten(),
        hidden=nn.Linear(128 * left[0] * left[1], hidden),
        act=nn.ReLU(),
        dropout=nn.Dropout(dropout),
        head=nn.Linear(hidden, num_classes),
    )
    return he(nn.Sequential(layers))


def _block(inputs: int, outputs: int, *, kernel: int) -> nn.Module:
    layers = OrderedDict(
        conv=nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        bn=nn.BatchNorm2d(outputs),
        act=nn.ReLU(),
        halve=nn.MaxPool2d(2),
    )
    return nn.Sequential(layers)
