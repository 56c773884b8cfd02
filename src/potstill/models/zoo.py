"""Models by name: `builtin:NAME`, `torchvision:NAME`, or a timm name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill.artifacts import read_json, sha256
from potstill.errors import ModelError
from potstill.models import blocks, packages, truncated
from potstill.models.card import Card
from potstill.models.card_record import card_from_json
from potstill.models.foreign_names import read_as
from potstill.models.outputs import Classifier, bare
from potstill.models.registry import Request, family_of
from potstill.models.weight_errors import finetuning, weight_error
from potstill.models.weights import State, fit, head_names, read_state, with_positions
from potstill.progress import note

WEIGHTS = "model.safetensors"
CARD = "card.json"


def create(
    name: str,
    *,
    classes: Sequence[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    options: Mapping[str, Any] | None = None,
    weights: Path | str | None = None,
    new_head: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> Classifier:
    """Return a model with its card, initialised from `seed` without touching the global generator.

    name: "builtin:resnet20-cifar", "torchvision:vgg16", or a timm name such as "mobilenetv2_100"; "NAME@LAYER" is
        truncated after a layer and has a new head ("tf_efficientnet_lite0@blocks.3", "resnet18@stage:2").
    size: input size (height, width) in pixels; None uses the model's own. channels: 1 or 3; models of timm and
        torchvision take colour images (grey images are repeated) unless 1 is given.
    options: keyword arguments of the architecture. weights: a file for `load_weights`, "hub" for the pretrained
        weights of timm or torchvision, "package:NAME" or "auto" (see `models.packages`), "blocks:FILE" for some of
        the blocks of a deeper network (see `models.blocks`); with `new_head` their head may have another number of
        classes. A truncated model may take the weights of the whole network then.
    Raises `ModelError` for an unknown name or option, and for weights that do not fit.
    """
    family, inner = family_of(name)
    source = packages.resolved(name, weights)
    request = Request(inner, tuple(classes), size, channels, dict(options or {}), hub=source == packages.HUB)
    if isinstance(source, Path) and truncated.AT in inner and not truncated.holds_truncated(read_state(source)):
        return normalised(_truncated(name, request, weights, new_head=new_head, seed=seed), mean=mean, std=std)
    with seeded(seed):
        network, card = family.build(request)
    classifier = Classifier(network, card)
    if isinstance(source, Path):
        deeper = str(weights).startswith(packages.BLOCKS)
        classifier = load_weights(classifier, source, new_head=new_head, deeper=deeper)
        if mean is None and card_beside(source) is None:
            note(
                f"{source.name} has no card: images are normalised with the default of {name}, mean "
                f"{_listed(classifier.card.mean)}, std {_listed(classifier.card.std)} for values in 0..1."
            )
    return normalised(classifier, mean=mean, std=std)


def _truncated(name: str, request: Request, weights: Path | str | None, *, new_head: bool, seed: int) -> Classifier:
    """Return a truncated model with the weights of the whole network and a new head."""
    whole, _, place = name.rpartition(truncated.AT)
    if not new_head:
        raise ModelError(
            f"{weights} holds the weights of {whole}, without the head of {name}, which has to be trained first: "
            f"{finetuning(name, Path(str(weights)))}"
        )
    loaded = create(
        whole,
        classes=request.classes,
        size=request.size,
        channels=request.channels,
        options=request.options,
        weights=weights,
        new_head=True,
        seed=seed,
    )
    with seeded(seed):
        return truncated.cut_at(loaded, place)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def normalised(
    classifier: Classifier, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Classifier:
    """Return the classifier with another normalisation of images in 0..1, one value per channel."""
    card = classifier.card
    card = card.replace(mean=tuple(mean or card.mean), std=tuple(std or card.std))
    return classifier if card == classifier.card else classifier.with_card(card)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global CPU generator inside the block; the state of the generators is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_weights(classifier: Classifier, file: Path, *, new_head: bool = False, deeper: bool = False) -> Classifier:
    """Load a file of weights into the network; return the classifier with the weights recorded on its card.

    Side heads in file or network are ignored. Other names of the same tensors are accepted (`foreign_names`).
    new_head: a head for another number of classes is not loaded and stays as initialised. deeper: the file is of a
    network with more blocks, of which some are taken (`blocks`). Nothing in the file is executed. Raises `ModelError`
    for a file that is missing, damaged, or does not fit.
    """
    trunk, card = bare(classifier.network), classifier.card
    whole = with_positions(read_as(trunk, file, len(card.classes)), trunk)
    state = _some_blocks(whole, classifier, file) if deeper else whole
    fits = fit(state, trunk, len(card.classes))
    left_out = {*fits.head, *head_names(trunk, fits.missing, len(card.classes))} if new_head else set()
    if not fits.holds(but=left_out):
        raise weight_error(fits, file, card, whole, trunk)
    trunk.load_state_dict({**trunk.state_dict(), **{k: v for k, v in state.items() if k not in left_out}})
    return classifier.with_card(_sourced(card, file))


def _some_blocks(state: State, classifier: Classifier, file: Path) -> State:
    names = bare(classifier.network).state_dict()
    own, all_of_them = blocks.counted(state, names)
    if own:
        note(f"{file.name}: {classifier.card.model} starts with {own} of its {all_of_them} blocks.")
    return blocks.of_blocks(state, names)


def _sourced(card: Card, file: Path) -> Card:
    """Return the card with the weights recorded, and the normalisation that belongs to them."""
    stored = card_beside(file)
    if stored is None or stored.channels != card.channels:
        return card.replace(source=file.name, weights_sha256=sha256(file))
    source = stored.source if packages.card_of(stored.weights_sha256) else file.name
    return card.replace(
        source=source,
        weights_sha256=stored.weights_sha256,
        mean=stored.mean,
        std=stored.std,
        licence=stored.licence,
    )


def card_beside(file: Path) -> Card | None:
    """Return the card of a file of weights: the one beside it, or that of a package.

    None if there is none, or if the card beside it belongs to another file.
    """
    digest, beside = sha256(file), file.parent / CARD
    if not beside.is_file():
        return packages.card_of(digest)
    card = card_from_json(read_json(beside), origin=str(beside))
    return card if card.weights_sha256 == digest else None


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a network or classifier, without side heads, which are never deployed."""
    network = model.network if isinstance(model, Classifier) else model
    return sum(parameter.numel() for parameter in bare(network).parameters())
