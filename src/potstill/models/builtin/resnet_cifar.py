"""The CIFAR networks of He et al. (arXiv:1512.03385, section 4.2), with and without shortcuts.

Depth is 6n + 2: three stages of n blocks at widths 16, 32 and 64. The shortcut that changes width has no
parameters (option A). Module names are those of the public CIFAR-10 weights, which load unchanged.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.builtin.init import he


class Block(nn.Module):
    """Two 3x3 convolutions [B, C, H, W] -> [B, C', H / stride, W / stride], with a shortcut if `residual`."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut = Shortcut(stride, outputs - inputs) if residual else None

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


class CifarNet(nn.Module):
    """Convolution, three stages, global average pool, linear."""

    def __init__(self, num_classes: int, channels: int, *, blocks: int, width: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.layer1 = _stage(width, width, blocks, stride=1, residual=residual)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2, residual=residual)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2, residual=residual)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int, residual: bool) -> nn.Sequential:
    first = Block(inputs, outputs, stride, residual=residual)
    others = [Block(outputs, outputs, 1, residual=residual) for _ in range(blocks - 1)]
    return nn.Sequential(first, *others)


def cifar_net(
    num_classes: int,
    channels: int,
    size: tuple[int, int],
    *,
    depth: int,
    residual: bool,
    width: int = 16,
) -> nn.Module:
    """Return the network of `depth` = 6n + 2 layers; ResNet-20 has 0.27 M parameters, ResNet-56 0.85 M.

    It is fully convolutional, so any size works; it is designed for 32x32.
    """
    assert (depth - 2) % 6 == 0, f"depth must be 6n + 2, not {depth}"
    return he(CifarNet(num_classes, channels, blocks=(depth - 2) // 6, width=width, residual=residual))
