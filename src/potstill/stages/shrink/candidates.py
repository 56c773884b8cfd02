"""Candidates: students by family, width, depth and input size, and pretrained networks truncated at each block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from potstill.data.augment.policy import LARGEST_SMALL
from potstill.models import packages, truncated, zoo
from potstill.models.outputs import Classifier
from potstill.models.truncated import AT
from potstill.stages.recipe import StudentConfig
from potstill.stages.shrink.settings import Pretrained

FEWEST_BITS = 3.3  # on average: below, weights lose more than a smaller network would
BITS_COST = {3.0: 3.0, 4.0: 1.0, 6.0: 0.5}
"""Points of accuracy that weights of so many bits on average may cost after reconstruction or training for them."""
OVERHEAD = 0.12  # share of a file that is not weights
PHOTO_SIZES = (96, 128, 160, 224)
SMALL = "small"
SCRATCH: dict[str, Sequence[tuple[str, dict[str, Any]]]] = {
    SMALL: (
        *(("builtin:small-cnn", {"width": width}) for width in (4, 8, 12, 16, 24, 32)),
        *(("builtin:resnet8-cifar", {"width": width}) for width in (4, 8, 12, 16, 24)),
        *(("builtin:resnet14-cifar", {"width": width}) for width in (8, 12, 16, 24)),
        *(("builtin:resnet20-cifar", {"width": width}) for width in (8, 12, 16, 24, 32)),
        *(("builtin:mlp", {"hidden": hidden}) for hidden in (16, 32, 64)),
    ),
    "photo": (
        *(("builtin:small-cnn", {"width": width}) for width in (8, 16, 32)),
        ("builtin:mobilenet-v1", {"width": 0.25}),
    ),
}
"""Networks that are trained from random weights, by kind of image. An MLP is a candidate for small images only."""
LARGEST_DENSE = 1024  # pixels of an image up to which an MLP is a candidate


@dataclass(frozen=True)
class Base:
    """A pretrained network from which students start, and its input size in pixels per side."""

    model: str
    weights: str
    side: int
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str = "unknown"

    def network(self, classes: Sequence[str], side: int | None = None) -> Classifier:
        """Return the network with its pretrained weights and a new head."""
        return zoo.create(
            self.model,
            classes=classes,
            size=(side, side) if side else None,
            options=self.options,
            weights=self.weights,
            new_head=True,
            mean=self.mean,
            std=self.std,
        ).eval()


@dataclass(frozen=True)
class Candidate:
    """A student before training.

    size: input size in pixels per side, None for the images' own. bits: of its weights when shipped; if few, on average
    about so many, because they differ by layer. prior: accuracy
    that is expected before training, in percent, of a probe on the pretrained features; None if there is none.
    """

    model: str
    size: int | None = None
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    weights: str | None = None
    bits: int = 8
    prior: float | None = None

    @property
    def name(self) -> str:
        """A name that is a folder's too: small-cnn-w16, tf_efficientnet_lite0-blocks.3-128, the same with -4bit."""
        model = re.sub(r"[^\w.+-]", "-", self.model.removeprefix("builtin:"))
        options = "".join(f"-{key[0]}{value:g}" for key, value in self.options.items())
        return f"{model}{options}{f'-{self.size}' if self.size else ''}{'' if self.bits == 8 else f'-{self.bits}bit'}"

    @property
    def network(self) -> str:
        """The name without the bits: of the training that candidates with other bits share."""
        return self.name.removesuffix(f"-{self.bits}bit")

    @property
    def fewest_bits(self) -> float:
        """The fewest bits on average: layers may have fewer than `bits` to fit into a budget."""
        return self.bits if self.bits >= 8 else FEWEST_BITS

    @property
    def student(self) -> StudentConfig:
        """Its part of a recipe."""
        return StudentConfig(model=self.model, options=self.options, weights=self.weights, size=self.size)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"name": self.name, **asdict(self)}


def bases(more: Sequence[Pretrained]) -> list[Base]:
    """Return the pretrained networks at hand: those of the settings first, then those of the installed packages."""
    from potstill.models import input_facts

    own = [
        Base(one.model, one.weights, input_facts.own_size(one.model), one.options, one.mean, one.std) for one in more
    ]
    packaged = [
        Base(one.model, one.weights, one.side, mean=one.mean, std=one.std, licence=one.licence)
        for one in packages.available()
    ]
    return [*own, *packaged]


def is_photo(side: int) -> bool:
    """Whether images with this median short side are treated as photos."""
    return side > LARGEST_SMALL


def from_scratch(side: int, pixels: int) -> Iterator[Candidate]:
    """Yield the candidates that start from random weights. side: median short side of the images; pixels: of one."""
    if is_photo(side):
        for size in PHOTO_SIZES[:2]:
            yield from (Candidate(model, size, dict(options)) for model, options in SCRATCH["photo"])
        return
    for model, options in SCRATCH[SMALL]:
        if model != "builtin:mlp" or pixels <= LARGEST_DENSE:
            yield Candidate(model, None, dict(options))


def places(network: Classifier) -> list[str]:
    """Return the layers after which a pretrained network can be truncated: its stages, and the blocks inside them."""
    paths = [tap.path for tap in truncated.stages(network)]
    inner = {name for name, _ in network.network.named_modules()}
    result = []
    for path in paths:
        blocks = sorted((name for name in inner if re.fullmatch(rf"{re.escape(path)}\.\d+", name)), key=_number)
        result += [*blocks[:-1], path]
    return result


def _number(path: str) -> int:
    return int(path.rpartition(".")[2])


def average_bits(size: float, parameters: int) -> float:
    """Return the bits of a weight, on average, in a file of `size` bytes; 8 at most."""
    return min(8 * (1 - OVERHEAD) * size / parameters, 8.0)


def lost_by(bits: float) -> float:
    """Return the points of accuracy that weights of so many bits on average may cost."""
    return float(np.interp(bits, list(BITS_COST), list(BITS_COST.values())))


def truncations(base: Base, layers: Sequence[str], size: int) -> list[Candidate]:
    """Return the candidates of a pretrained network at an input size: truncated after each layer, and whole."""
    cut = [Candidate(f"{base.model}{AT}{layer}", size, base.options, base.weights) for layer in layers]
    return [*cut, Candidate(base.model, size, base.options, base.weights)]
