"""ONNX to `Graph`: shapes and constants from one run, and pairs of QuantizeLinear and DequantizeLinear as grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from potstill.exporters.onnx_file import read_prepared
from potstill.exporters.tflite.graph import Graph, Grid, Node, Value
from potstill.model_files.onnx_values import values_of_a_run

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
EIGHT_BITS = (np.dtype(np.uint8), np.dtype(np.int8))


def read(file: Path) -> Graph:
    """Return the graph of an ONNX file of potstill, for one image."""
    proto = read_prepared(file)
    return _Reader(proto, values_of_a_run(proto)).graph()


class _Reader:
    """Turns the nodes of a file into those of a `Graph`, in order."""

    def __init__(self, proto: onnx.ModelProto, run: dict[str, np.ndarray]) -> None:
        self._proto, self._run = proto, run
        self._image = proto.graph.input[0].name
        self._known: dict[str, Value] = {self._image: Value("image", run[self._image].shape)}
        self._quantized: dict[str, tuple[Value, Grid | None]] = {}
        self._nodes: list[Node] = []

    def graph(self) -> Graph:
        for node in self._proto.graph.node:
            self._read(node)
        logits = self._known[self._proto.graph.output[0].name]
        return Graph(self._known[self._image], logits, self._nodes)

    def _read(self, node: onnx.NodeProto) -> None:
        if node.op_type == DEQUANTIZE and node.input[0] in self._quantized:
            self._known[node.output[0]] = self._on_grid(*self._quantized[node.input[0]], node.output[0])
        elif node.op_type == DEQUANTIZE:
            self._known[node.output[0]] = self._dequantized(node)
        elif not any(name in self._known and self._known[name].array is None for name in node.input):
            return  # computed from constants, or from shapes: its value is in the run
        elif node.op_type == QUANTIZE:
            self._quantized[node.output[0]] = (self._known[node.input[0]], self._grid(node))
        else:
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        """Add a node once for each of its outputs; `part` says which of them it gives."""
        inputs = [self._value(name) if name else None for name in node.input]
        options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        for part, name in enumerate(node.output):
            if not name or self._run[name].dtype != np.float32:
                continue  # shapes and indices: constants, whose value is in the run
            self._known[name] = Value(name, self._run[name].shape)
            self._nodes.append(Node(node.op_type, list(inputs), self._known[name], {**options, "part": part}))

    def _value(self, name: str) -> Value:
        if name not in self._known:
            array = self._run[name]
            self._known[name] = Value(name, array.shape, array)
        return self._known[name]

    def _on_grid(self, value: Value, grid: Grid | None, name: str) -> Value:
        """Return the value with its grid; where it has another already, the result of a change of grids."""
        if grid is None or value.grid is None or value.grid.equals(grid):
            value.grid = value.grid or grid
            return value
        output = Value(name, value.shape, grid=grid)
        self._nodes.append(Node("Requantize", [value], output))
        return output

    def _grid(self, node: onnx.NodeProto) -> Grid | None:
        """Return the int8 grid of a QuantizeLinear node; None if it has more than 8 bits."""
        codes = self._run[node.output[0]]
        if codes.dtype not in EIGHT_BITS:
            return None
        shift = 128 if codes.dtype == np.uint8 else 0
        zero = self._run[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1)
        return Grid.of(float(self._run[node.input[1]]), int(zero) - shift)

    def _dequantized(self, node: onnx.NodeProto) -> Value:
        """Return a constant that is stored as integers, with its codes; in float64, since a bias has 32 bits."""
        codes, scale = self._run[node.input[0]], self._run[node.input[1]].astype(np.float32)
        zero = self._run[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(scale.shape)
        axis = next((int(one.i) for one in node.attribute if one.name == "axis"), 1) % max(codes.ndim, 1)
        side = [-1 if position == axis else 1 for position in range(codes.ndim)] if scale.size > 1 else []
        array = (codes.astype(np.float64) - zero.reshape(side)) * scale.astype(np.float64).reshape(side)
        grid = Grid(scale.reshape(-1), zero.reshape(-1).astype(np.int64), axis)
        return Value(node.output[0], codes.shape, array, codes, grid)
