"""The pretrained network of a transfer, and a check of the normalisation of its images.

Wrong normalisation silently costs accuracy, so weights without a card are refused unless the user gives mean and std,
and given values are compared with the card or the published values.
"""

from __future__ import annotations

import math
from pathlib import Path

from potstill import progress
from potstill.errors import ConfigError, ModelError
from potstill.model_files.folder import read_card
from potstill.models import input_facts, packages, zoo
from potstill.models.card import Card
from potstill.models.outputs import Classifier
from potstill.models.registry import blueprint
from potstill.models.weights import present
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.settings import FinetuneConfig

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std, one value per channel


def side_of(config: FinetuneConfig) -> int:
    """Return the input size in pixels per side: from the settings, or the network's own; 0 if it accepts any."""
    folder = _folder(config)
    own = max(read_card(folder).crop) if folder else input_facts.own_size(config.network)
    return config.data.size or own


def backbone(config: FinetuneConfig, images: Images) -> Classifier:
    """Return the pretrained network (with `from_scratch` a random one) with a new head for the images' classes.

    Raises `ModelError` if there are no weights, they do not fit, or the normalisation of their images is unknown.
    """
    folder = _folder(config)
    weights = _weights(config, folder)
    _check_normalisation(config, weights)
    card = read_card(folder) if folder else None
    name = card.model if card else config.network
    own = name.startswith("builtin:")
    made = zoo.create(
        name,
        classes=images.manifest.classes,
        size=_size(config, card, images, own),
        channels=card.channels if card else _channels(config, images) if own else None,
        options=card.options if card else config.options,
        weights=config.weights if str(config.weights).startswith(packages.BLOCKS) else weights,
        new_head=weights is not None,
        mean=config.mean,
        std=config.std,
        seed=config.seed,
    )
    return made.with_card(images.shown.on(made.card)).eval()


def _channels(config: FinetuneConfig, images: Images) -> int:
    """Return the channels of a network of potstill: those of the images, or of the weights if their mean is in colour.

    Grey images are repeated for a network that was pretrained in colour, as they are for those of other libraries.
    """
    return max(images.shown.channels, len(config.mean or ()))


def _size(config: FinetuneConfig, card: Card | None, images: Images, own: bool) -> tuple[int, int] | None:
    if config.data.size:
        return config.data.size, config.data.size
    if card:
        return card.size
    return images.shown.crop if own else None


def _folder(config: FinetuneConfig) -> Path | None:
    """Return the folder of a saved model, None if `model` is a name."""
    path = Path(config.network)
    if path.suffix == ".onnx":
        raise ModelError(f"{path} is an exported file, which cannot be trained. Give the stage folder it came from.")
    return path if path.is_dir() else None


def _weights(config: FinetuneConfig, folder: Path | None) -> Path | str | None:
    if config.from_scratch:
        return None
    if folder is None:
        found = packages.resolved(config.network, config.weights or packages.AUTO)
        return present(found) if isinstance(found, Path) else found
    if config.weights:
        raise ConfigError(f"{folder} contains weights and their card: leave --weights out, or give a model's name.")
    return folder / zoo.WEIGHTS


def _check_normalisation(config: FinetuneConfig, weights: Path | str | None) -> None:
    """Raise if the normalisation of the weights' images is unknown, or if the settings contradict their card."""
    normalisation = _normalisation(config)
    if weights is None:
        return
    if isinstance(weights, str):  # "hub"
        _, card = blueprint(config.network, ("0", "1"))
        _refuse_other(normalisation, card, f"the published weights of {config.network}")
    elif (card := zoo.card_beside(weights)) is not None:
        _refuse_other(normalisation, card, f"the card of {weights}")
    else:
        _without_card(config, normalisation, weights)


def _normalisation(config: FinetuneConfig) -> Normalisation | None:
    if config.mean is None or config.std is None:
        return None
    if len(config.mean) != len(config.std) or len(config.mean) not in (1, 3):
        raise ConfigError("--mean and --std need one value per channel: 3 for colour, 1 for greyscale.")
    if max(*config.mean, *config.std) > 2 or min(config.std) <= 0:
        raise ConfigError(
            "--mean and --std must be for images in 0..1, and each std must be > 0: divide values for 0..255 by 255, "
            "and give --mean 0,0,0 --std 1,1,1 if images were not normalised."
        )
    return config.mean, config.std


def _refuse_other(normalisation: Normalisation | None, card: Card, source: str) -> None:
    if normalisation is None or _alike(normalisation, card):
        return
    mean, std = map(_listed, normalisation)
    raise ModelError(
        f"--mean {mean} --std {std} contradicts {source}, which has mean {_listed(card.mean)}, std "
        f"{_listed(card.std)}. Leave --mean and --std out."
    )


def _without_card(config: FinetuneConfig, normalisation: Normalisation | None, file: Path) -> None:
    _, published = blueprint(config.network, ("0", "1"))
    usual = f"--mean {_listed(published.mean)} --std {_listed(published.std)}"
    if normalisation is None:
        raise ModelError(
            f"{file} has no card, so the normalisation of its images is unknown, and a wrong one silently costs "
            f"accuracy. Put its {zoo.CARD} beside it, or give mean, std and size: {config.network} is published for "
            f"{usual} --size {max(published.crop)}."
        )
    if not _alike(normalisation, published):
        mean, std = map(_listed, normalisation)
        progress.note(
            f"Normalising images with --mean {mean} --std {std}; the published weights of {config.network} use {usual}."
        )
    if config.data.size is None:
        progress.note(f"Using the input size of {config.network}; --size changes it.")


def _alike(normalisation: Normalisation, card: Card) -> bool:
    return all(
        len(a) == len(b) and all(math.isclose(x, y, abs_tol=5e-3) for x, y in zip(a, b, strict=True))
        for a, b in zip(normalisation, (card.mean, card.std), strict=True)
    )


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
