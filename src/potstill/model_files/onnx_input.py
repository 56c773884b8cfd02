"""The two inputs of an exported ONNX file: raw pixels of any size, or the prepared input of the network.

A raw file begins with the preprocessing of its card (`exporters.onnx_raw`), which ends in the tensor `PREPARED`. What
comes after it is the prepared graph, which other formats are made from and which augmented images are given to.
"""

from __future__ import annotations

from typing import Literal

import onnx
from onnx import TensorProto, helper

from potstill.errors import ModelError

InputForm = Literal["raw", "prepared"]

CARD, TEMPERATURE, REJECT = "potstill.card", "potstill.temperature", "potstill.reject"
"""Keys of the file's `metadata_props`: the card as JSON; the calibration temperature, and the probability below which
the answer is "unsure", as numbers."""

INPUT = "image"
"""Name of the input of every exported file."""

INSIDE, PREPARED = "~", "~image"
"""Beginning of the names of the preprocessing, and its last tensor: float32 [batch, C, H, W] in 0..1."""


def form_of(model: onnx.ModelProto) -> InputForm:
    """Return what a graph takes: "raw" if it begins with the preprocessing of its card."""
    return "raw" if any(PREPARED in node.output for node in model.graph.node) else "prepared"


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph that takes the prepared input, `image` float32 [batch, C, H, W] in 0..1, with all metadata.

    Returns a model that takes it already as it is. Raises `ModelError` if the preprocessing is not as it was exported.
    """
    if form_of(model) == "prepared":
        return model
    inner = onnx.ModelProto()
    inner.CopyFrom(model)
    graph = inner.graph
    shape = _prepared_shape(graph)
    kept = [node for node in graph.node if not node.output[0].startswith(INSIDE)]
    for node in kept:
        node.input[:] = [INPUT if name == PREPARED else name for name in node.input]
    held = [initializer for initializer in graph.initializer if not initializer.name.startswith(INSIDE)]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(kept)
    graph.initializer.extend(held)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape]))
    return inner


def _prepared_shape(graph: onnx.GraphProto) -> list[int]:
    """Return [C, H, W], which the last node of the preprocessing reshapes to."""
    last = next(node for node in graph.node if PREPARED in node.output)
    held = {initializer.name: initializer for initializer in graph.initializer}
    if last.op_type != "Reshape" or last.input[1] not in held:
        raise ModelError("The preprocessing of this ONNX file was changed after the export. Export it again.")
    return onnx.numpy_helper.to_array(held[last.input[1]]).tolist()[1:]
