"""The graph between ONNX and TensorFlow Lite: values with their number grid, and nodes in the order of execution.

Axes are those of ONNX (images are [1, C, H, W]) until `lower`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that codes stand for: `scale * (code - zero)`.

    scale: float32 [1], or [C] for one per channel; zero: int64, of the same shape. axis: of the channels.
    """

    scale: np.ndarray
    zero: np.ndarray
    axis: int = 0

    @classmethod
    def of(cls, scale: float, zero: int) -> Grid:
        """Return the grid of a whole tensor."""
        return cls(np.array([scale], np.float32), np.array([zero], np.int64))

    def equals(self, other: Grid) -> bool:
        """Whether both are the same numbers."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest int8 codes of `values`; only for the grid of a whole tensor."""
        return np.clip(np.rint(values / self.scale[0]) + self.zero[0], -128, 127).astype(np.int8)


@dataclass(eq=False)
class Value:
    """A tensor. array: its content where it is constant, in float or int64; codes: the integers that it was stored as.

    grid: of int8 codes; None for float.
    """

    name: str
    shape: tuple[int, ...]
    array: np.ndarray | None = None
    codes: np.ndarray | None = None
    grid: Grid | None = None

    @property
    def is_map(self) -> bool:
        """Whether it has rows and columns, and so another order of axes in TensorFlow Lite."""
        return len(self.shape) == 4


@dataclass(eq=False)
class Node:
    """An operator with one output. kind: an operator of ONNX, or of those that `simplify` introduces.

    inputs: a missing optional input is None. options: attributes of ONNX by name, and those of `simplify`.
    """

    kind: str
    inputs: list[Value | None]
    output: Value
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def x(self) -> Value:
        """The first input."""
        first = self.inputs[0]
        assert first is not None, "operators have a first input"
        return first

    def constant(self, position: int) -> np.ndarray | None:
        """Return the content of an input; None where it is missing or not constant."""
        value = self.inputs[position] if position < len(self.inputs) else None
        return None if value is None else value.array


@dataclass
class Graph:
    """image -> logits."""

    image: Value
    logits: Value
    nodes: list[Node]

    def readers(self, value: Value) -> list[Node]:
        """Return the nodes that read a value."""
        return [node for node in self.nodes if value in node.inputs]

    def only_reader(self, value: Value) -> Node | None:
        """Return the node that reads a value, if it is the only one and the value is no output."""
        readers = self.readers(value)
        return readers[0] if len(readers) == 1 and value is not self.logits else None

    def replace(self, old: Value, new: Value) -> None:
        """Let all readers of `old` read `new`."""
        for node in self.nodes:
            node.inputs = [new if value is old else value for value in node.inputs]
        if self.logits is old:
            self.logits = new

    def float_values(self) -> Iterator[Value]:
        """Yield every tensor that is computed from the image, in order."""
        yield self.image
        yield from (node.output for node in self.nodes)


def symmetric(array: np.ndarray, axis: int) -> tuple[np.ndarray, Grid]:
    """Return int8 codes (-127 to 127) of a weight, and their grid: one scale for each channel along `axis`."""
    others = tuple(side for side in range(array.ndim) if side != axis)
    largest = np.abs(array).max(axis=others)
    scale = np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(127)
    codes = np.rint(array / shaped(scale, array.ndim, axis)).clip(-127, 127).astype(np.int8)
    return codes, Grid(scale, np.zeros(len(scale), np.int64), axis)


def shaped(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Return a vector with the axes of a tensor, to be broadcast along the others."""
    return np.reshape(vector, [-1 if side == axis else 1 for side in range(rank)])


def grid_of_range(low: float, high: float) -> Grid:
    """Return the int8 grid from `low` to `high`, widened to include 0, which is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return Grid.of(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def dims(values: Iterable[Any]) -> tuple[int, ...]:
    """Return a shape as plain numbers."""
    return tuple(int(value) for value in values)
