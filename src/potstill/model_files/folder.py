"""A model in a folder: `save_model` writes model.safetensors and card.json, `load_model` reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from potstill.artifacts import atomic, check_file, read_json, sha256, write_json
from potstill.errors import ModelError
from potstill.model_files.rebuild import rebuilt
from potstill.models.card import Card
from potstill.models.card_record import card_from_json
from potstill.models.outputs import Classifier, bare
from potstill.models.weights import read_state
from potstill.models.zoo import (
    CARD,
    WEIGHTS,
    create,
    load_weights,
)


def save_model(classifier: Classifier, folder: Path) -> Card:
    """Write `model.safetensors` and `card.json` into a folder; return the card as written.

    Side heads are only for training and are not saved. The folder's manifest is written by `artifacts.finish`.
    Raises `ModelError` if a weight is not finite.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in bare(classifier.network).state_dict().items()}
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ModelError(
            f"The weights of {classifier.card.model} are not finite (first in '{broken[0]}'), so they are not saved in "
            f"{folder}. Lower the learning rate, or use other weights to start from."
        )
    with atomic(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(state))  # save_file has a temporary file of its own, which a kill leaves
        card = classifier.card.replace(weights_sha256=sha256(temporary))
    write_json(folder / CARD, card.to_json())
    return card


def load_model(path: Path | str) -> Classifier:
    """Return the classifier that `save_model` wrote into a folder, in eval mode and without side heads.

    Raises `ModelError` if the folder holds no model, or the weights do not match its card.
    """
    folder = Path(path)
    card = read_card(folder)
    built = create(card.model, classes=card.classes, size=card.size, channels=card.channels, options=card.options)
    network = bare(built.network)
    if card.compressed:
        network = rebuilt(network, read_state(folder / WEIGHTS), torch.zeros(2, card.channels, *card.size))
    classifier = load_weights(Classifier(network, card), folder / WEIGHTS)
    if classifier.card.weights_sha256 != card.weights_sha256:
        raise ModelError(
            f"{folder / WEIGHTS} does not match {folder / CARD} (the sha256 differs): one of them was replaced. Run "
            "the stage again."
        )
    return classifier.with_card(card).eval()


def read_card(folder: Path) -> Card:
    """Return the card of a saved model; raise `ModelError` if the folder holds none."""
    missing = [name for name in (WEIGHTS, CARD) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} holds no saved model: {' and '.join(missing)} not found. Give the folder of a finished stage, "
            "such as runs/NAME/teacher, or a model's name and a file of weights."
        )
    check_file(folder / CARD)
    return card_from_json(read_json(folder / CARD), origin=str(folder / CARD))
