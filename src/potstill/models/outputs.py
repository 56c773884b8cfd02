"""The outputs of every model, `Outputs(logits, features, aux)`, and `Classifier`, a network with its card.

A `Classifier` takes images in 0..1 of any size and does the resizing and normalisation itself, so that teacher and
student may differ in both.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.card import Card
from potstill.models.hooks import Tap, Taps, as_map


@dataclass
class Outputs:
    """logits [B, K]; features by tap name; aux: logits [B, K] of side heads, in training only."""

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    aux: tuple[Tensor, ...] = ()


class Classifier(nn.Module):
    """A network with its card.

    The network returns logits [B, K], or `Outputs` if it has side heads. taps: places inside the network whose
    features are part of the outputs; `models.inspect.taps.tapped` resolves them from names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: Card, *, taps: tuple[Tap, ...] = ()) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self.taps = taps
        shape = (1, card.channels, 1, 1)
        # Not persistent: they belong to the card, and a state dict should hold only learned values.
        self.register_buffer("mean", torch.tensor(card.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(shape), persistent=False)

    def forward(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1; other sizes are resized to the card's."""
        image = self.prepare(image)
        if not self.taps:
            return _outputs(self.network(image))
        # The hooks exist for one call only: a permanent hook would be copied together with the network.
        with Taps(bare(self.network), self.taps) as taps:
            outputs = _outputs(self.network(image))
        return dataclasses.replace(outputs, features=taps.collected)

    def prepare(self, image: Tensor) -> Tensor:
        """Return images in 0..1 resized and normalised for the network."""
        return (self.resize(image) - self.mean) / self.std

    def resize(self, image: Tensor) -> Tensor:
        """Return images in 0..1 with the channels and the size of the card, still in 0..1."""
        return resized(image, channels=self.card.channels, size=self.card.size)

    def with_card(self, card: Card) -> Classifier:
        """Return the same network with another card."""
        return self.replace(card=card)

    def replace(
        self, *, network: nn.Module | None = None, card: Card | None = None, taps: tuple[Tap, ...] | None = None
    ) -> Classifier:
        """Return a copy with some parts replaced, in the same mode and on the same device."""
        taps = self.taps if taps is None else taps
        other = Classifier(network or self.network, card or self.card, taps=taps).to(self.mean.device)
        other.training = self.training
        return other


def _outputs(result: Tensor | Outputs) -> Outputs:
    return result if isinstance(result, Outputs) else Outputs(logits=result)


def resized(image: Tensor, *, channels: int, size: tuple[int, int]) -> Tensor:
    """Return images [B, C, H, W] with 1 or 3 `channels` and `size` = (height, width); used by all models."""
    if image.shape[1] != channels:
        image = image.expand(-1, channels, -1, -1) if channels == 3 else luma(image)
    if tuple(image.shape[-2:]) != tuple(size):
        image = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
    return image


def luma(image: Tensor) -> Tensor:
    """Return grey images [B, 1, H, W] of colour images, with the ITU-R 601 weights that Pillow uses."""
    weight = torch.tensor([0.299, 0.587, 0.114], device=image.device, dtype=image.dtype)
    return (image * weight.view(1, 3, 1, 1)).sum(1, keepdim=True)


class SideHead(nn.Module):
    """An auxiliary classifier (arXiv:1409.4842): pool to 4x4, 1x1 convolution, dense, dropout, logits.

    Takes maps [B, C, H, W], tokens or vectors with `channels`; returns logits [B, K].
    """

    def __init__(
        self, channels: int, num_classes: int, *, width: int = 128, hidden: int = 1024, dropout: float = 0.7
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = nn.Conv2d(channels, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.hidden = nn.Linear(16 * width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(self.pool(as_map(x)))))
        x = F.relu(self.hidden(x.flatten(1)))
        return self.head(self.dropout(x))


class SideHeads(nn.Module):
    """A network (`trunk`) with side heads at the outputs of some of its modules, in training only.

    heads: for each tap of the trunk a module from its features to logits [B, K]. In eval mode they are not run and
    `aux` is empty.
    """

    def __init__(self, trunk: nn.Module, heads: dict[Tap, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.taps = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def forward(self, image: Tensor) -> Outputs:
        if not self.training:
            return Outputs(logits=self.trunk(image))
        with Taps(self.trunk, self.taps) as taps:
            logits = self.trunk(image)
        aux = (head(taps.collected[tap.name]) for head, tap in zip(self.heads, self.taps, strict=True))
        return Outputs(logits=logits, aux=tuple(aux))


def bare(network: nn.Module) -> nn.Module:
    """Return the network without side heads."""
    return network.trunk if isinstance(network, SideHeads) else network
