"""The network that is transferred, and the question that is never skipped: how were its images normalised?

Wrong preprocessing costs points in silence, so weights without a card are refused until somebody says it, and what
somebody says is held against the card and the publisher.
"""

from __future__ import annotations

import math
from pathlib import Path

from potstill import progress
from potstill.artifacts import read_json
from potstill.errors import ConfigError, ModelError
from potstill.model_files.folder import read_card
from potstill.models import input_facts, zoo
from potstill.models.card import Card
from potstill.models.outputs import Classifier
from potstill.models.registry import blueprint
from potstill.models.weights import present, sha256
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.settings import FinetuneConfig


def side_of(config: FinetuneConfig) -> int:
    """Return the pixels a side that the network shall see: as asked for, or its own; 0 where it takes any."""
    folder = _folder(config)
    own = max(read_card(folder).crop) if folder else input_facts.own_size(config.model)
    return config.data.size or own


def backbone(config: FinetuneConfig, images: Images) -> Classifier:
    """Return the pretrained network (a random one with `from_scratch`) with a new head for the images' classes.

    Raises `ModelError` where there are no weights, they do not fit, or nobody says how their images were normalised.
    """
    folder = _folder(config)
    weights = _weights(config, folder)
    _check_normalisation(config, weights)
    card = read_card(folder) if folder else None
    name = card.model if card else config.model
    own = name.startswith("builtin:")
    made = zoo.create(
        name,
        classes=images.manifest.classes,
        size=_size(config, card, images, own),
        channels=card.channels if card else images.shown.channels if own else None,
        options=card.options if card else config.options,
        weights=weights,
        new_head=weights is not None,
        mean=config.mean,
        std=config.std,
        seed=config.seed,
    )
    shown = images.shown
    return made.with_card(made.card.replace(resize=shown.resize, crop=shown.crop)).eval()


def _size(config: FinetuneConfig, card: Card | None, images: Images, own: bool) -> tuple[int, int] | None:
    if config.data.size:
        return config.data.size, config.data.size
    if card:
        return card.size
    return images.shown.crop if own else None


def _folder(config: FinetuneConfig) -> Path | None:
    """Return the folder of a saved model, None where `model` is a name."""
    path = Path(config.model)
    if path.suffix == ".onnx":
        raise ModelError(f"{path} is an exported file, which cannot learn. Give the stage folder it came from.")
    return path if path.is_dir() else None


def _weights(config: FinetuneConfig, folder: Path | None) -> Path | str | None:
    if config.from_scratch:
        return None
    if folder is None:
        return present(Path(config.weights)) if config.weights not in (None, "hub") else "hub"
    if config.weights:
        raise ConfigError(f"{folder} carries its weights and their card: leave --weights out, or give a model's name.")
    return folder / zoo.WEIGHTS


def _check_normalisation(config: FinetuneConfig, weights: Path | str | None) -> None:
    """Raise where nobody says how the weights' images were normalised, or two say different things."""
    given = _given(config)
    if weights is None:
        return
    if weights == "hub":
        _, card = blueprint(config.model, ("0", "1"))
        _refuse_other(given, card, f"the published weights of {config.model}")
    elif (card := _card_beside(weights)) is not None:
        _refuse_other(given, card, f"the card beside {weights}")
    else:
        _without_card(config, given, weights)


def _given(config: FinetuneConfig) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if config.mean is None or config.std is None:
        return None
    if len(config.mean) != len(config.std) or len(config.mean) not in (1, 3):
        raise ConfigError("--mean and --std need one value a channel each: 3 for colour, 1 for grey.")
    if max(*config.mean, *config.std) > 2 or min(config.std) <= 0:
        raise ConfigError(
            "--mean and --std are of images in 0..1, and these are not: divide values for 0..255 by 255, and give "
            "--mean 0,0,0 --std 1,1,1 where images were not normalised."
        )
    return config.mean, config.std


def _card_beside(file: Path) -> Card | None:
    """Return the card that describes a file of weights; one of another file says nothing about this one."""
    beside = file.parent / zoo.CARD
    if not beside.is_file():
        return None
    card = Card.from_json(read_json(beside))
    return card if card.weights_sha256 == sha256(file) else None


def _refuse_other(given: tuple | None, card: Card, source: str) -> None:
    if given is None or _alike(given, card):
        return
    raise ModelError(
        f"--mean {_listed(given[0])} --std {_listed(given[1])} contradicts {source}, which says mean "
        f"{_listed(card.mean)}, std {_listed(card.std)}. Leave --mean and --std out."
    )


def _without_card(config: FinetuneConfig, given: tuple | None, file: Path) -> None:
    _, published = blueprint(config.model, ("0", "1"))
    usual = f"--mean {_listed(published.mean)} --std {_listed(published.std)}"
    if given is None:
        raise ModelError(
            f"{file} has no card, so nothing says how its images were normalised; a wrong guess costs accuracy in "
            f"silence. Put its {zoo.CARD} beside it, or say it: {config.model} is published for {usual} "
            f"--size {max(published.crop)}."
        )
    if not _alike(given, published):
        progress.note(
            f"Images are normalised with mean {_listed(given[0])} and std {_listed(given[1])}, as was asked for; "
            f"{config.model} is published for {usual}."
        )
    if config.data.size is None:
        progress.note(f"Images are shown at the size of {config.model}; --size changes it.")


def _alike(given: tuple[tuple[float, ...], tuple[float, ...]], card: Card) -> bool:
    said = (card.mean, card.std)
    return all(
        len(a) == len(b) and all(math.isclose(x, y, abs_tol=5e-3) for x, y in zip(a, b, strict=True))
        for a, b in zip(given, said, strict=True)
    )


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)
