"""A quantized graph without what only takes space: a twelfth of the 8-bit file of a small network.

Tools that quantize give every tensor a long name, every scale a zero point of its own and every layer a vector of
zeros. Runtimes need none of it.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

ZERO_BY_DEFAULT = (TensorProto.INT8, TensorProto.INT32)


def slim(model: onnx.ModelProto) -> None:
    """Share equal constants, leave out zero points that are zero, and shorten tensor names, in place.

    Inputs and outputs of the graph keep their names. What the graph computes does not change by a bit.
    """
    graph = model.graph
    assert not any(a.type == onnx.AttributeProto.GRAPH for node in graph.node for a in node.attribute)
    _without_zeros(graph)
    _shared(graph)
    _without_unused(graph)
    _renamed(graph)


def _without_zeros(graph: onnx.GraphProto) -> None:
    zeros = {i.name for i in graph.initializer if i.data_type in ZERO_BY_DEFAULT and not _values(i).any()}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and node.input[2] in zeros:
            del node.input[2]


def _shared(graph: onnx.GraphProto) -> None:
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    for initializer in graph.initializer:
        key = (initializer.data_type, *initializer.dims, _values(initializer).tobytes())
        same[initializer.name] = first.setdefault(key, initializer.name)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def _without_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [initializer for initializer in graph.initializer if initializer.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _renamed(graph: onnx.GraphProto) -> None:
    names = _names()
    short = {value.name: value.name for value in [*graph.input, *graph.output]} | {"": ""}

    def renamed(name: str) -> str:
        if name not in short:
            short[name] = next(candidate for candidate in names if candidate not in short)
        return short[name]

    for initializer in graph.initializer:
        initializer.name = renamed(initializer.name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]


def _names() -> Iterator[str]:
    """Yield a, b, ..., aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))


def _values(initializer: TensorProto) -> np.ndarray:
    return numpy_helper.to_array(initializer)
