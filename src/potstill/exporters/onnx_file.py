"""Writing an ONNX file: nothing in it but the graph, the weights and the card; one file, whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir

from potstill import artifacts
from potstill._version import __version__
from potstill.errors import ModelError
from potstill.exporters.onnx_slim import strip
from potstill.model_files.onnx import CARD, TEMPERATURE
from potstill.models.card import Card

LARGEST = 2_000_000_000
"""Bytes; a protobuf message, which is what an ONNX file is, ends at 2 GiB."""


def write(model: ir.Model, file: Path, metadata: dict[str, str]) -> None:
    """Write the model without what exporters leave behind; `metadata` is all that remains beside the graph."""
    strip(model)
    model.producer_name, model.producer_version = "potstill", __version__
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    if proto.ByteSize() > LARGEST:
        raise too_large(file, proto.ByteSize())
    with artifacts.atomic(file) as temporary:
        temporary.write_bytes(proto.SerializeToString())


def too_large(file: Path, size: int) -> ModelError:
    """Return the error for a model that does not fit into one file."""
    return ModelError(
        f"{file} would take {size / 1e9:.1f} GB and an ONNX file ends at 2 GB. Distil into a smaller student first."
    )


def metadata_of(card: Card, temperature: float | None) -> dict[str, str]:
    """Return what travels inside the file: the card, and the temperature where one was calibrated."""
    text = json.dumps(card.to_json(), ensure_ascii=False, separators=(",", ":"))
    return {CARD: text} | ({} if temperature is None else {TEMPERATURE: repr(float(temperature))})
