"""Writing an ONNX file: nothing in it but the graph, the weights and the card; one file, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from potstill import artifacts
from potstill._version import __version__
from potstill.errors import ModelError
from potstill.model_files.onnx import CARD, TEMPERATURE
from potstill.models.card import Card

LARGEST = 2_000_000_000
"""Bytes; a protobuf message, which is what an ONNX file is, ends at 2 GiB."""


def write(model: onnx.ModelProto, file: Path, metadata: dict[str, str]) -> None:
    """Write the model without what exporters leave behind; `metadata` is all that remains beside the graph."""
    stripped(model)
    onnx.helper.set_model_props(model, metadata)
    if model.ByteSize() > LARGEST:
        raise too_large(file, model.ByteSize())
    with artifacts.atomic(file) as temporary:
        temporary.write_bytes(model.SerializeToString())


def too_large(file: Path, size: int) -> ModelError:
    """Return the error for a model that does not fit into one file."""
    return ModelError(
        f"{file} would take {size / 1e9:.1f} GB and an ONNX file ends at 2 GB. Distil into a smaller student first."
    )


def metadata_of(card: Card, temperature: float | None) -> dict[str, str]:
    """Return what travels inside the file: the card, and the temperature where one was calibrated."""
    text = json.dumps(card.to_json(), ensure_ascii=False, separators=(",", ":"))
    return {CARD: text} | ({} if temperature is None else {TEMPERATURE: repr(float(temperature))})


def stripped(model: onnx.ModelProto) -> None:
    """Remove names, stack traces and shapes that no runtime reads, in place."""
    model.producer_name, model.producer_version, model.doc_string = "potstill", __version__, ""
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
    graph.doc_string = ""
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        node.ClearField("name")
    for value in [*graph.input, *graph.output, *graph.initializer]:
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
