"""Packed integers of 2 to 7 bits inside an ONNX graph.

ONNX has types of 4 and 2 bits, but runtimes do not use their 8-bit instructions for convolutions with them (five times
slower in onnxruntime). So the graph itself unpacks the numbers to 8 bits, by operators that depend only on constants: a
runtime evaluates them once, when it loads the file, and then runs as fast as with 8-bit weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from potstill.compress.quantize.pack import pack_codes

OPSET = 21
"""The first operator set with 4-bit numbers."""


class Packer:
    """Adds packed constants to a graph; constants of equal width share the lookup table that unpacks their bytes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self._shared: set[str] = set()

    def add(self, name: str, codes: np.ndarray, bits: int) -> None:
        """Add an int8 tensor `name` with the values `codes` (signed), stored with 2 to 8 `bits` each."""
        if bits == 8:
            self._graph.initializer.append(numpy_helper.from_array(codes.astype(np.int8), name))
        elif bits == 4:
            raw = pack_codes((codes & 15).ravel(), 4).tobytes()
            stored = f"{name}/codes"
            self._graph.initializer.append(helper.make_tensor(stored, TensorProto.INT4, codes.shape, raw, raw=True))
            self._node("Cast", [stored], name, to=TensorProto.INT8)
        else:
            self._add_parts(name, codes, bits)

    def add_float(self, name: str, codes: np.ndarray, bits: int, step: np.ndarray, axis: int) -> None:
        """Add a float tensor `name`: `codes` times the `step` of their channel, with channels along `axis`."""
        self.add(f"{name}/int8", codes, bits)
        value = self._node("Cast", [f"{name}/int8"], f"{name}/float", to=TensorProto.FLOAT)
        shape = [-1 if side == axis else 1 for side in range(codes.ndim)]
        self._node("Mul", [value, self._constant(f"{name}/step", step.reshape(shape))], name)

    def finish(self) -> None:
        """Insert the operators before those that use their results."""
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *rest])

    def _add_parts(self, name: str, codes: np.ndarray, bits: int) -> None:
        """Store the bits of a code in parts whose width divides a byte: 3 bits as 2 and 1, 6 as 4 and 2."""
        low, so_far = 0, ""
        for width in (width for width in (4, 2, 1) if bits & width):
            last = low + width == bits
            part = name if last and not so_far else f"{name}/{low}"
            self._add_part(part, codes, low, width, signed=last)
            if so_far:
                part = self._node("BitwiseOr", [so_far, part], name if last else f"{part}/or")
            low, so_far = low + width, part

    def _add_part(self, name: str, codes: np.ndarray, low: int, width: int, *, signed: bool) -> None:
        """Add an int8 tensor `name`: the bits `low` to `low + width` of each code, at their position."""
        stored = self._constant(f"{name}/codes", pack_codes((codes.ravel() >> low) & ((1 << width) - 1), width))
        index = self._node("Cast", [stored], f"{name}/index", to=TensorProto.INT32)
        parts = self._node("Gather", [self._table(low, width, signed), index], f"{name}/parts")
        if codes.size % (8 // width):
            flat = self._node("Reshape", [parts, self._constant("flat", np.array([-1]))], f"{name}/flat")
            ends = [self._constant(f"at{end}", np.array([end])) for end in (0, codes.size)]
            parts = self._node("Slice", [flat, *ends], f"{name}/cut")
        self._node("Reshape", [parts, self._constant(f"shape{codes.shape}", np.array(codes.shape))], name)

    def _table(self, low: int, width: int, signed: bool) -> str:
        """Return the name of a table int8 [256, 8 / width]: the values of the parts of each byte."""
        parts = np.arange(256)[:, None] >> np.arange(0, 8, width) & ((1 << width) - 1)
        if signed:
            parts = np.where(parts >> (width - 1), parts - (1 << width), parts)
        return self._constant(f"table{low}.{width}.{signed}", (parts << low).astype(np.int8))

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self._shared:
            self._shared.add(name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
