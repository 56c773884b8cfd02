"""GoogLeNet (arXiv:1409.4842) with BatchNorm, for 224 pixels and for 32, and its two auxiliary classifiers.

The Inception modules are torchvision's, so its weights load. They use 3x3 kernels where the paper has 5x5, which
gives the published 6.6 M parameters.
"""

from __future__ import annotations

from torch import nn

from potstill.models.builtin.init import he
from potstill.models.hooks import Tap
from potstill.models.outputs import SideHead, SideHeads


def googlenet(
    num_classes: int, channels: int, size: tuple[int, int], *, dropout: float = 0.2, aux_dropout: float = 0.7
) -> nn.Module:
    """Return the 224-pixel network, with side heads at the modules 4a and 4d."""
    from torchvision.models.googlenet import BasicConv2d

    trunk = _trunk(num_classes, dropout)
    if channels != 3:
        trunk.conv1 = BasicConv2d(channels, 64, kernel_size=7, stride=2, padding=3)
    return _with_heads(trunk, num_classes, aux_dropout)


def googlenet_cifar(
    num_classes: int, channels: int, size: tuple[int, int], *, dropout: float = 0.2, aux_dropout: float = 0.7
) -> nn.Module:
    """Return the variant for about 32 pixels: the stem halves once, so the input of module 4a is 8x8."""
    from torchvision.models.googlenet import BasicConv2d

    trunk = _trunk(num_classes, dropout)
    trunk.conv1 = BasicConv2d(channels, 64, kernel_size=3, padding=1)
    trunk.maxpool1 = nn.Identity()
    return _with_heads(trunk, num_classes, aux_dropout)


def _trunk(num_classes: int, dropout: float) -> nn.Module:
    from torchvision.models import GoogLeNet

    return GoogLeNet(num_classes, aux_logits=False, init_weights=False, dropout=dropout)


def _with_heads(trunk: nn.Module, num_classes: int, aux_dropout: float) -> nn.Module:
    heads = {
        Tap("4a", "inception4a"): he(SideHead(512, num_classes, dropout=aux_dropout)),
        Tap("4d", "inception4d"): he(SideHead(528, num_classes, dropout=aux_dropout)),
    }
    return SideHeads(he(trunk), heads)
