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

        They are stored without sign, 2 ** (bits - 1) larger, in parts whose width divides a byte: 3 bits as 2 and 1.
        """
        half = 1 << (bits - 1)
        low, so_far = 0, ""
        for width in (width for width in (4, 2, 1) if bits & width):
            part = self._part(f"{name}/{low}", codes.astype(np.int64) + half, low, width)
            so_far = self._node("BitwiseOr", [so_far, part], f"{part}/or") if so_far else part
            low += width
        wide = self._node("Cast", [so_far], f"{name}/wide", to=TensorProto.INT32)  # int8 cannot be subtracted
        signed = self._node("Sub", [wide, self._constant(f"half{bits}", np.array(half, np.int32))], f"{name}/signed")
        return self._node("Cast", [signed], f"{name}/int8", to=TensorProto.INT8)

    def _part(self, name: str, codes: np.ndarray, low: int, width: int) -> str:
        """Return the name of a flat uint8 tensor: the bits `low` to `low + width` of each code, at their position."""
        mask = (1 << width) - 1
        stored = self._constant(f"{name}/codes", pack_codes((codes >> low) & mask, width).reshape(-1, 1))
        places = self._constant(f"places{width}", np.arange(0, 8, width, dtype=np.uint8))
        moved = self._node("BitShift", [stored, places], f"{name}/moved", direction="RIGHT")
        parts = self._node(
            "BitwiseAnd", [moved, self._constant(f"mask{width}", np.array(mask, np.uint8))], f"{name}/and"
        )
        flat = self._node("Reshape", [parts, self._constant("flat", np.array([-1]))], f"{name}/flat")
        if not low:
            return flat
        place = self._constant(f"place{low}", np.array(low, np.uint8))
        return self._node("BitShift", [flat, place], f"{name}/place", direction="LEFT")

    def _constant(self, name: str, values: np.ndarray) -> str:
        if name not in self._shared:
            self._shared.add(name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
