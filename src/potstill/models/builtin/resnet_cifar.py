"""The CIFAR networks of He et al. (arXiv:1512.03385, section 4.2), with and without shortcuts.

Depth is 6n + 2: three stages of n blocks at widths 16, 32 and 64. The shortcut that changes width has no
parameters (option A) or is a 1x1 convolution (option B). Module names are those of the public CIFAR-10 weights, which
load unchanged.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.builtin.init import he

Option = Literal["A", "B"]


class Block(nn.Module):
    """Two 3x3 convolutions [B, C, H, W] -> [B, C', H / stride, W / stride], with a shortcut unless it is None."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.relu2(y)


class Shortcut(nn.Module):
    """Option A: every `stride`-th row and column; the added channels are zeros, half on each side."""

    def __init__(self, stride: int, added: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = added // 2
        self.after = added - added // 2

    def forward(self, x: Tensor) -> Tensor:
        if self.before == self.after == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class Projection(nn.Sequential):
    """Option B: a 1x1 convolution and BatchNorm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


class CifarNet(nn.Module):
    """Convolution, three stages, global average pool, linear. option: of the shortcuts; None has none."""

    def __init__(self, num_classes: int, channels: int, *, blocks: int, width: int, option: Option | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, blocks, stride=1, option=option)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2, option=option)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2, option=option)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int, option: Option | None) -> nn.Sequential:
    first = Block(inputs, outputs, stride, _shortcut(inputs, outputs, stride, option))
    others = [Block(outputs, outputs, 1, _shortcut(outputs, outputs, 1, option)) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


def _shortcut(inputs: int, outputs: int, stride: int, option: Option | None) -> nn.Module | None:
    if option is None:
        return None
    changes = stride > 1 or inputs != outputs
    return Projection(inputs, outputs, stride) if option == "B" and changes else Shortcut(stride, outputs - inputs)


def cifar_net(
    num_classes: int,
    channels: int,
    size: tuple[int, int],
    *,
    depth: int,
    residual: bool,
    width: int = 16,
    shortcut: Option = "A",
) -> nn.Module:
    """Return the network of `depth` = 6n + 2 layers; ResNet-20 has 0.27 M parameters, ResNet-56 0.85 M.

    shortcut: where width and size change, "A" pads with zeros and has no parameters, "B" is a 1x1 convolution. It is
    ignored by plain networks. The network is fully convolutional, so any size works; it is
    designed for 32x32. Raises `TypeError` for other shortcuts.
    """
    assert (depth - 2) % 6 == 0, f"depth must be 6n + 2, not {depth}"
    if shortcut not in ("A", "B"):
        raise TypeError(f"the argument shortcut is A or B, not {shortcut!r}")
    option = shortcut if residual else None
    return he(CifarNet(num_classes, channels, blocks=(depth - 2) // 6, width=width, option=option))
