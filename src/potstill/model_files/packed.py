"""Packed files (docs/packed-weights.md) as classifiers, so that the file itself is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from potstill.artifacts import sha256
from potstill.compress.quantize.pack import KEY, pack, read_head, unpack
from potstill.errors import ModelError
from potstill.model_files.rebuild import rebuilt
from potstill.models import zoo
from potstill.models.card_record import card_from_text
from potstill.models.outputs import Classifier, bare

CARD = "card"


def packed(classifier: Classifier) -> bytes:
    """Return the packed file of a classifier whose network was quantized, with its card inside."""
    text = json.dumps(classifier.card.to_json(), ensure_ascii=False, separators=(",", ":"))
    return pack(classifier.network, metadata={CARD: text})


def is_packed(file: Path) -> bool:
    """Whether a file holds packed weights; only its first bytes are read."""
    if not file.is_file():
        return False
    with file.open("rb") as handle:
        return KEY.encode() in handle.read(256)


def load_packed(file: Path) -> Classifier:
    """Return the classifier in a packed file, in eval mode, with quantized weights and inputs.

    Raises `ModelError` if the file is damaged, has another format, or was packed without a card.
    """
    metadata = read_head(file.read_bytes(), str(file))["metadata"]
    if CARD not in metadata:
        raise ModelError(
            f"{file} holds packed weights without a card, so the network is unknown. Pack it with `potstill quantize`, "
            "or read the weights with potstill.compress.quantize.unpack."
        )
    card = card_from_text(metadata[CARD], origin=f"The card inside {file}").replace(weights_sha256=sha256(file))
    built = zoo.create(card.model, classes=card.classes, size=card.size, channels=card.channels, options=card.options)
    example = torch.zeros(2, card.channels, *card.size)
    return Classifier(rebuilt(bare(built.network), unpack(file), example), card).eval()
