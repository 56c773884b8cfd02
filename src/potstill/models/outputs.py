"""What every model says: `Outputs(logits, features, aux)`, whatever its family.

A `Classifier` is a network and its card. It takes images in 0..1 of any size and does the resizing and the
normalisation itself, so that teacher and student may differ in both and nothing else has to know.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.models.card import Card


@dataclass
class Outputs:
    """logits [B, K]; features by tap name; aux: the logits [B, K] of side heads, in training only."""

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    aux: tuple[Tensor, ...] = ()


class Classifier(nn.Module):
    """A network that carries its card.

    The network returns logits [B, K], or `Outputs` where it has side heads.
    """

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self.card = card
        shape = (1, card.channels, 1, 1)
        # Not persistent: they are facts of the card, and a state dict should hold what was learned.
        self.register_buffer("mean", torch.tensor(card.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(shape), persistent=False)

    def forward(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1; another size is resized to the card's."""
        said = self.network(self.prepare(image))
        return said if isinstance(said, Outputs) else Outputs(logits=said)

    def prepare(self, image: Tensor) -> Tensor:
        """Resize and normalise images in 0..1 to what the network expects."""
        channels = self.card.channels
        if image.shape[1] != channels:
            image = image.expand(-1, channels, -1, -1) if channels == 3 else luma(image)
        if tuple(image.shape[-2:]) != self.card.size:
            image = F.interpolate(image, self.card.size, mode="bilinear", antialias=True, align_corners=False)
        return (image - self.mean) / self.std

    def with_card(self, card: Card) -> Classifier:
        """Return the same network under another card."""
        return Classifier(self.network, card)


def luma(image: Tensor) -> Tensor:
    """Return the grey image [B, 1, H, W] of a colour one, with the ITU-R 601 weights that Pillow uses."""
    weight = torch.tensor([0.299, 0.587, 0.114], device=image.device, dtype=image.dtype)
    return (image * weight.view(1, 3, 1, 1)).sum(1, keepdim=True)


class Taps:
    """Collects the outputs of modules inside a network by path, without editing the network.

    >>> with Taps(classifier.network, ["layer3"]) as taps:
    ...     classifier(image)
    ...     taps.collected["layer3"]
    """

    def __init__(self, network: nn.Module, paths: list[str] | tuple[str, ...]) -> None:
        modules = dict(network.named_modules())
        self.collected: dict[str, Tensor] = {}
        self._handles = [modules[path].register_forward_hook(self._keeper(path)) for path in paths]

    def _keeper(self, path: str):
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            self.collected[path] = output

        return keep

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def replace_features(outputs: Outputs, features: dict[str, Tensor]) -> Outputs:
    """Return `outputs` with these features."""
    return dataclasses.replace(outputs, features=features)
