"""Tiny networks with what makes compression hard: shortcuts without parameters, groups, several readers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from timm import create_model
from timm.models.vgg import VGG
from torch import Tensor, nn
from torch.nn import functional as F


class OptionABlock(nn.Module):
    """A residual block of the CIFAR ResNet; where it halves the image, the shortcut slices and pads with zeros."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pad, self.stride = width - given, stride

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        short = F.pad(short, (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + short)


class OptionAResNet(nn.Module):
    def __init__(self, width: int = 8, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages = []
        for stage, wide in enumerate([width, 2 * width, 4 * width]):
            for block in range(blocks):
                given = wide // 2 if stage and not block else wide
                stages.append(OptionABlock(given, wide, 2 if stage and not block else 1))
        self.layers = nn.Sequential(*stages)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def separable(groups: int = 4) -> nn.Sequential:
    """Dense, depthwise, pointwise, grouped: each followed by BatchNorm and ReLU."""

    def block(layer: nn.Conv2d) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(nn.Conv2d(3, 16, 3, 1, 1, bias=False)),
        *block(nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False)),
        *block(nn.Conv2d(16, 32, 1)),
        *block(nn.Conv2d(32, 16, 3, 1, 1, groups=groups, bias=False)),
        *block(nn.Conv2d(16, 24, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (partial(create_model, "resnet18", channels=(8, 16, 32, 64)), 32),
    "mobilenetv3_small_050": (partial(create_model, "mobilenetv3_small_050"), 32),
    "tf_mobilenetv3_small_minimal_100": (partial(create_model, "tf_mobilenetv3_small_minimal_100"), 33),
    "vgg11": (partial(VGG, [8, "M", 16, "M", 16, 8, "M"], mlp_ratio=0.02), 32),
    "vgg11_bn": (partial(VGG, [8, "M", 16, "M", 16, 8, "M"], mlp_ratio=0.02, norm_layer=nn.BatchNorm2d), 32),
    "vit_tiny": (partial(create_model, "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2), 32),
}


def family(name: str) -> tuple[nn.Module, Tensor]:
    """A timm family with random weights, small, and images for it."""
    make, size = FAMILIES[name]
    return lived_in(make(num_classes=7)), torch.rand(2, 3, size, size)


def lived_in(model: nn.Module) -> nn.Module:
    """Give BatchNorm statistics, gains and shifts that are not 1 and 0; in eval mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def flattened() -> nn.Sequential:
    """A classic: convolutions, pooling, and a hidden layer that reads the flattened map."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )
