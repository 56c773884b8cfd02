"""Writing an ONNX file that contains only the graph, the weights and the card; one file, written atomically."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_ir as ir

from potstill import artifacts
from potstill._version import __version__
from potstill.errors import ModelError
from potstill.exporters.onnx_raw import attach
from potstill.exporters.onnx_slim import strip
from potstill.model_files.onnx_input import CARD, REJECT, TEMPERATURE, InputForm, prepared
from potstill.models.card import Card
from potstill.models.card_record import card_from_text

LARGEST = 2_000_000_000
"""Bytes; an ONNX file is a protobuf message, which is limited to 2 GiB."""


def write(model: ir.Model, file: Path, metadata: dict[str, str], *, input: InputForm) -> None:
    """Write a prepared model without what exporters leave behind; `metadata` is all that remains beside the graph.

    input: "raw" puts the preprocessing of the card in the metadata before the graph (`onnx_raw`).
    """
    strip(model)
    model.producer_name, model.producer_version = "potstill", __version__
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    if input == "raw":
        attach(proto, card_from_text(metadata[CARD], origin="The card"))
    if proto.ByteSize() > LARGEST:
        raise too_large(file, proto.ByteSize())
    with artifacts.atomic(file) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def read_prepared(exported: Path) -> onnx.ModelProto:
    """Return the model in a file with the prepared input, whichever it was exported with (`onnx_input.prepared`)."""
    return prepared(onnx.load(exported))


def too_large(file: Path, size: int) -> ModelError:
    """Return the error for a model that does not fit into one file."""
    return ModelError(
        f"{file} would have {size / 1e9:.1f} GB, and an ONNX file is limited to 2 GB. Distill into a smaller student."
    )


def metadata_of(card: Card, temperature: float | None) -> dict[str, str]:
    """Return the metadata of the file: the card, and the calibration temperature and threshold if there are any."""
    text = json.dumps(card.to_json(), ensure_ascii=False, separators=(",", ":"))
    threshold = {REJECT: repr(card.reject["threshold"])} if card.reject else {}
    return {CARD: text} | threshold | ({} if temperature is None else {TEMPERATURE: repr(float(temperature))})


def with_card(file: Path, card: Card) -> None:
    """Replace the card inside a file, and nothing else of it."""
    proto = onnx.load(file)
    metadata = {one.key: one.value for one in proto.metadata_props if one.key != REJECT}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, metadata | metadata_of(card, None))
    with artifacts.atomic(file) as temporary:
        temporary.write_bytes(proto.SerializeToString())
