"""Tiny classifiers to export: a plain one with normalisation that matters, and one with side heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from potstill.models.card import Card
from potstill.models.hooks import Tap
from potstill.models.outputs import Classifier, SideHead, SideHeads

CLASSES = ("apple", "birne", "Kürbis")


def card(size: tuple[int, int] = (12, 10), channels: int = 3) -> Card:
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Card("test:tiny", CLASSES, channels, size, mean, std, resize=14, crop=size, licence="CC0-1.0")


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)) + x)


class Tiny(nn.Module):
    """Convolution, residual block, dropout, linear: 8 channels."""

    def __init__(self, channels: int = 3, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.block = Residual(width)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.block(self.stem(x)).mean((2, 3))))


def tiny(*, size: tuple[int, int] = (12, 10), channels: int = 3, seed: int = 0) -> Classifier:
    """Return a classifier in training mode, whose BatchNorm statistics and outputs are of an ordinary size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Tiny(channels)
        nn.init.normal_(network.head.weight, std=2.0)
        classifier = Classifier(network, card(size, channels))
        with torch.no_grad():
            classifier.train()(torch.rand(64, channels, *size))
    return classifier


def with_side_heads() -> Classifier:
    """Return a classifier with a side head that is never deployed."""
    plain = tiny()
    heads = {Tap("early", "stem"): SideHead(8, len(CLASSES), width=4, hidden=8)}
    return Classifier(SideHeads(plain.network, heads), plain.card)


def images(count: int, *, size: tuple[int, int] = (12, 10), channels: int = 3, seed: int = 1) -> Tensor:
    """Return images in 0..1 that differ from one another as a whole, not only as noise."""
    generator = torch.Generator().manual_seed(seed)
    tint = torch.rand((count, channels, 1, 1), generator=generator)
    return (0.7 * tint + 0.3 * torch.rand((count, channels, *size), generator=generator)).clamp(0, 1)
