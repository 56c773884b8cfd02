"""What all rules of `lower` share: tensors for values, constants, operators, and the order of axes.

Maps are [1, H, W, C] here. A rule takes a `Lowering` and a `Node`, and adds operators that compute its output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Grid, Node, Value, dims, grid_of_range
from potstill.exporters.tflite.operators import Operator, Tensor

INT8, INT32, FLOAT = np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.float32)
LAST = (0, 2, 3, 1)
"""Axes of [N, C, H, W] in the order [N, H, W, C]."""
FIRST = (0, 3, 1, 2)
"""The other way."""
ACTIVATIONS = {"Relu": 1, "Relu6": 3}
"""Fused activations, as numbers of the schema."""

Rule = Callable[["Lowering", Node], None]


class Unsupported(Exception):
    """A node that TensorFlow Lite cannot compute; the text is for users."""


class Lowering:
    """Collects operators; integer: whether tensors are int8."""

    def __init__(self, *, integer: bool) -> None:
        self.integer = integer
        self.dtype = INT8 if integer else FLOAT
        self.operators: list[Operator] = []
        self._tensors: dict[Value, Tensor] = {}

    def tensor(self, value: Value | None) -> Tensor:
        """Return the tensor of a value that was computed before, or is constant."""
        assert value is not None, "only inputs that exist"
        if value not in self._tensors:
            assert value.array is not None, f"{value.name} is computed by a node before"
            array = value.array.transpose(LAST) if value.is_map else value.array
            self._tensors[value] = self.number(value.name, array)
        return self._tensors[value]

    def put(self, value: Value, tensor: Tensor) -> None:
        """Let `tensor` stand for a value; with a change of grid, where the value has another."""
        moved = self.integer and value.grid is not None and tensor.grid is not None
        self._tensors[value] = self.requantized(tensor, value.grid) if moved and value.grid else tensor

    def output(self, value: Value) -> Tensor:
        """Return a new tensor for a value, on its grid."""
        tensor = self.like(value.name, shape_of(value), value.grid)
        self._tensors[value] = tensor
        return tensor

    def like(self, name: str, shape: Sequence[int], grid: Grid | None) -> Tensor:
        """Return a new computed tensor."""
        return Tensor(name, dims(shape), self.dtype, grid=grid if self.integer else None)

    def number(self, name: str, array: np.ndarray) -> Tensor:
        """Return a constant operand: float, or int8 on the grid of its own range."""
        if not self.integer:
            return constant(name, array.astype(FLOAT))
        grid = grid_of_range(float(array.min()), float(array.max()))
        return constant(name, grid.codes(array), grid)

    def add(self, code: str, inputs: Sequence[Tensor | None], *outputs: Tensor, **options: Any) -> None:
        """Add an operator."""
        self.operators.append(Operator(code, list(inputs), list(outputs), options))

    def requantized(self, tensor: Tensor, grid: Grid | None) -> Tensor:
        """Return the tensor on another grid."""
        if not self.integer or grid is None or tensor.grid is None or tensor.grid.equals(grid):
            return tensor
        moved = self.like(f"{tensor.name}/requantized", tensor.shape, grid)
        self.add("QUANTIZE", [tensor], moved)
        return moved

    def reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the same numbers in the same order with another shape."""
        if tensor.shape == dims(shape):
            return tensor
        result = self.like(f"{tensor.name}/reshaped", shape, tensor.grid)
        sides = integers("shape", shape)
        self.add("RESHAPE", [tensor, sides], result, NewShape=dims(shape))
        return result

    def transposed(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Return the tensor with its axes in another order."""
        result = self.like(f"{tensor.name}/transposed", [tensor.shape[axis] for axis in order], tensor.grid)
        self.add("TRANSPOSE", [tensor, integers("order", order)], result)
        return result


def constant(name: str, data: np.ndarray, grid: Grid | None = None) -> Tensor:
    """Return a constant tensor."""
    return Tensor(name, data.shape, data.dtype, np.ascontiguousarray(data), grid)


def integers(name: str, values: Sequence[Any] | np.ndarray) -> Tensor:
    """Return a constant int32 tensor: a shape, axes, paddings."""
    return constant(name, np.asarray(values, INT32))


def shape_of(value: Value) -> tuple[int, ...]:
    """Return the shape of a value in TensorFlow Lite."""
    return dims(value.shape[axis] for axis in LAST) if value.is_map else dims(value.shape)


def per_axis(values: Sequence[Any] | np.ndarray, rank: int) -> list[Any]:
    """Return one entry an axis of ONNX in the order of TensorFlow Lite."""
    return [values[axis] for axis in (LAST if rank == 4 else range(rank))]


def axis_of(axis: int, rank: int) -> int:
    """Return the position in TensorFlow Lite of an axis of ONNX."""
    return FIRST[axis] if rank == 4 else axis


def activation(node: Node) -> dict[str, int]:
    """Return the option of a fused activation."""
    return {"FusedActivationFunction": ACTIVATIONS[node.options["activation"]]} if "activation" in node.options else {}
