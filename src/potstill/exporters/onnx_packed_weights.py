"""Packed integers of 2 to 7 bits inside an ONNX graph.

ONNX has types of 4 and 2 bits, but runtimes do not use their 8-bit instructions for convolutions with them (five times
slower in onnxruntime). So the graph itself unpacks the numbers to 8 bits, by operators that depend only on constants: a
runtime evaluates them once, when it loads the file, and then runs as fast as with 8-bit weights. All constants of equal
width are unpacked together: a constant of its own operators would take 300 bytes more.
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
    """Adds packed constants to a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self._shared: set[str] = set()
        self._waiting: dict[int, dict[str, np.ndarray]] = {}

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
            self._waiting.setdefault(bits, {})[name] = codes

    def add_float(self, name: str, codes: np.ndarray, bits: int, step: np.ndarray, axis: int) -> None:
        """Add a float tensor `name`: `codes` times the `step` of their channel, with channels along `axis`."""
        self.add(f"{name}/int8", codes, bits)
        value = self._node("Cast", [f"{name}/int8"], f"{name}/float", to=TensorProto.FLOAT)
        shape = [-1 if side == axis else 1 for side in range(codes.ndim)]
        self._node("Mul", [value, self._constant(f"{name}/step", step.reshape(shape))], name)

    def finish(self) -> None:
        """Insert the operators before those that use their results."""
        later, self._nodes = self._nodes, []
        for bits, tensors in self._waiting.items():
            self._add_together(bits, tensors)
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *later, *rest])

    def _add_together(self, bits: int, tensors: dict[str, np.ndarray]) -> None:
        """Add int8 tensors by name, whose codes are stored one after the other, filled up to whole bytes."""
        flat = np.concatenate([codes.ravel() for codes in tensors.values()])
        whole = self._unpacked(f"codes{bits}", np.pad(flat, (0, -flat.size % 8)), bits)
        sizes = [codes.size for codes in tensors.values()]
        parts = [f"{name}/flat" for name in tensors]
        if filled := -flat.size % 8:
            sizes, parts = [*sizes, filled], [*parts, f"{whole}/filled"]
        lengths = self._constant(f"{whole}/sizes", np.array(sizes))
        self._nodes.append(helper.make_node("Split", [whole, lengths], parts, axis=0))
        for name, codes in tensors.items():
            shape = self._constant(f"shape{codes.shape}", np.array(codes.shape))
            self._node("Reshape", [f"{name}/flat", shape], name)

    def _unpacked(self, name: str, codes: np.ndarray, bits: int) -> str:
        """Return the name of a flat int8 tensor with the values `codes`.

        The bits of a code are stored in parts whose width divides a byte: 3 bits as 2 and 1, 6 as 4 and 2.
        """
        low, so_far = 0, ""
        for width in (width for width in (4, 2, 1) if bits & width):
            part = self._part(f"{name}/{low}", codes, low, width, signed=low + width == bits)
            so_far = self._node("BitwiseOr", [so_far, part], f"{part}/or") if so_far else part
            low += width
        return so_far

    def _part(self, name: str, codes: np.ndarray, low: int, width: int, *, signed: bool) -> str:
        """Return the name of a flat int8 tensor: the bits `low` to `low + width` of each code, at their position."""
        stored = self._constant(f"{name}/codes", pack_codes((codes >> low) & ((1 << width) - 1), width))
        index = self._node("Cast", [stored], f"{name}/index", to=TensorProto.INT32)
        parts = self._node("Gather", [self._table(low, width, signed), index], f"{name}/parts")
        return self._node("Reshape", [parts, self._constant("flat", np.array([-1]))], f"{name}/flat")

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
