"""From an exported ONNX file to a program for `runner.js`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from potstill.model_files.onnx_input import prepared
from potstill.report.runner.lower import RULES
from potstill.report.runner.program import Program, Unsupported, Writer

COMPACT = 256
"""Integer constants of so many elements stay integers in the program."""


def read_program(file: Path) -> Program:
    """Return the program of an exported ONNX file for one image, without the preprocessing of photos.

    Raises `Unsupported` if the interpreter lacks an operator of it.
    """
    from potstill.model_files.onnx_values import values_of_a_run

    model = prepared(onnx.load(file))
    writer = Writer(model.graph.output[0].name, values_of_a_run(model))
    nodes = [node for node in model.graph.node if _runs(writer, node)]
    if missing := sorted({node.op_type for node in nodes} - set(RULES)):
        raise Unsupported(f"the {'operators' if missing[1:] else 'operator'} {', '.join(missing)}")
    for node in nodes:
        RULES[node.op_type](writer, node, _attributes(node))
    writer.program.drop_unused()
    return writer.program


def _runs(writer: Writer, node: onnx.NodeProto) -> bool:
    """Whether a node runs in the page: it reads the image, or unfolds the integers of weights; notes its results."""
    read = {name for name in node.input if name in writer.made} if node.op_type != "Shape" else set()
    if not read and not _unfolds(writer, node):
        return False
    writer.made |= set(node.output)
    if read <= writer.unfolded:
        writer.unfolded |= set(node.output)
    return True


def _unfolds(writer: Writer, node: onnx.NodeProto) -> bool:
    result = writer.values[node.output[0]]
    if node.op_type not in ("DequantizeLinear", "Cast") or result.dtype != np.float32 or result.size < COMPACT:
        return False
    return node.input[0] in writer.values and writer.values[node.input[0]].dtype.name in ("int8", "uint8")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    pairs = ((one.name, onnx.helper.get_attribute_value(one)) for one in node.attribute)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in pairs}
