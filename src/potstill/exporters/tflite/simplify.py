"""Fewer kinds of nodes, before they become operators of TensorFlow Lite.

`Affine` is `scale * x + offset` with one pair per channel (normalisation, BatchNorm, bias), `Dense` a matrix product
with a weight [out, in], `Mean` and `ReduceMax` reduce the axes in `axes`, `Reshape` gives the shape of its output.
An activation after a layer becomes the option `activation` of the layer, if nothing quantizes in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Graph, Node, Value, dims

ALIASES = ("Identity", "Dropout", "Cast")
SHAPES = ("Flatten", "Squeeze", "Unsqueeze", "Reshape")
FUSED_INTO = ("Conv", "Dense", "Add", "Mul", "Affine")
FUSED = ("Relu", "Relu6")


def simplify(graph: Graph) -> None:
    """Rewrite the nodes, in place."""
    for node in list(graph.nodes):
        if node.kind in ALIASES:
            graph.nodes.remove(node)
            graph.replace(node.output, node.x)
    for node in graph.nodes:
        _rename(node)
    _merge_affine(graph)
    _merge_activations(graph)
    _reorder_dense(graph)


def _rename(node: Node) -> None:
    rule = _RULES.get(node.kind)
    if rule is not None:
        rule(node)


def _elementwise(node: Node) -> None:
    """Sums and products with one constant per channel are affine."""
    constants = [value for value in node.inputs if value is not None and value.array is not None]
    if not constants or len(node.inputs) != 2:
        return
    constant, first = constants[0], node.inputs[0] is constants[0]
    value = next(value for value in node.inputs if value is not constant)
    vector = None if value is None else _per_channel(constant, value.shape)
    if value is None or value.shape != node.output.shape or vector is None or (node.kind == "Div" and first):
        return
    one, none = np.ones_like(vector), np.zeros_like(vector)
    pair = {
        "Add": (one, vector),
        "Sub": (-one, vector) if first else (one, -vector),
        "Mul": (vector, none),
        "Div": (1 / vector, none),
    }[node.kind]
    node.kind, node.inputs, node.options = "Affine", [value], dict(zip(("scale", "offset"), pair, strict=True))


def _per_channel(constant: Value, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a constant as float64 [C], if it is the same everywhere but along the channels of `shape`."""
    if len(shape) not in (2, 4) or len(constant.shape) > len(shape):
        return None
    assert constant.array is not None, "only constants"
    full = np.reshape(constant.array, (1,) * (len(shape) - len(constant.shape)) + constant.shape)
    if any(side != 1 for axis, side in enumerate(full.shape) if axis != 1):
        return None
    return np.broadcast_to(full.astype(np.float64).reshape(-1), shape[1]).copy()


def _batch_norm(node: Node) -> None:
    scale, bias, mean, variance = (np.asarray(node.constant(position), np.float64) for position in range(1, 5))
    gain = scale / np.sqrt(variance + node.options.get("epsilon", 1e-5))
    node.kind, node.inputs, node.options = "Affine", [node.x], {"scale": gain, "offset": bias - mean * gain}


def _gemm(node: Node) -> None:
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    options = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0} | node.options
    plain = not options["transA"] and options["alpha"] == options["beta"] == 1
    if plain and weight is not None and weight.array is not None and (bias is None or bias.array is not None):
        node.kind, node.options = "Dense", {}
        node.inputs = [node.x, weight if options["transB"] else _transposed(weight), bias]


def _matmul(node: Node) -> None:
    weight = node.inputs[1]
    if weight is not None and weight.array is not None and len(weight.shape) == 2 and len(node.x.shape) == 2:
        node.kind, node.inputs, node.options = "Dense", [node.x, _transposed(weight), None], {}


def _transposed(weight: Value) -> Value:
    assert weight.array is not None, "only constants"
    codes = None if weight.codes is None else weight.codes.T
    grid = None if weight.grid is None else type(weight.grid)(weight.grid.scale, weight.grid.zero, 1 - weight.grid.axis)
    return Value(weight.name, weight.shape[::-1], weight.array.T, codes, grid)


def _clip(node: Node) -> None:
    """Clip is one of the activations that TensorFlow Lite has, or stays."""
    low, high = (np.inf if (edge := node.constant(position)) is None else float(edge) for position in (1, 2))
    if (low, high) == (0, 6):
        node.kind, node.inputs = "Relu6", [node.x]
    elif low == 0 and high > 1e30:
        node.kind, node.inputs = "Relu", [node.x]


def _pool_all(kind: str) -> Callable[[Node], None]:
    def rule(node: Node) -> None:
        node.kind, node.inputs = kind, [node.x]
        node.options = {"axes": tuple(range(2, len(node.x.shape))), "keepdims": 1}

    return rule


def _reduce(kind: str) -> Callable[[Node], None]:
    def rule(node: Node) -> None:
        given: Any = node.constant(1) if len(node.inputs) > 1 else node.options.get("axes")
        axes = range(len(node.x.shape)) if given is None else np.reshape(given, -1)
        node.options = {
            "axes": tuple(sorted(int(axis) % len(node.x.shape) for axis in axes)),
            "keepdims": node.options.get("keepdims", 1),
        }
        node.kind, node.inputs = kind, [node.x]

    return rule


def _shape(node: Node) -> None:
    node.kind, node.inputs, node.options = "Reshape", [node.x], {}


def _split(node: Node) -> None:
    """A part of a split is a slice."""
    axis = node.options.get("axis", 0) % len(node.x.shape)
    sizes = node.constant(1)
    parts = node.options.get("num_outputs", 0)
    if sizes is None:
        whole = -(-node.x.shape[axis] // parts)
        sizes = [whole] * parts
    begin = int(np.sum(sizes[: node.options["part"]]))
    node.kind = "Slice"
    cut = [[begin], [begin + node.output.shape[axis]], [axis], [1]]
    node.inputs = [node.x, *(Value("", (1,), np.array(one)) for one in cut)]


_RULES: dict[str, Callable[[Node], None]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _elementwise),
    **dict.fromkeys(SHAPES, _shape),
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Clip": _clip,
    "GlobalAveragePool": _pool_all("Mean"),
    "GlobalMaxPool": _pool_all("ReduceMax"),
    "ReduceMean": _reduce("Mean"),
    "ReduceMax": _reduce("ReduceMax"),
    "Split": _split,
}


def _merge_affine(graph: Graph) -> None:
    """Merge affine nodes with the affine or weighted node before them, where no grid lies in between."""
    for node in list(graph.nodes):
        before = _maker(graph, node.x) if node.kind == "Affine" else None
        if before is None or node.x.grid is not None or graph.only_reader(node.x) is not node:
            continue
        scale, offset = node.options["scale"], node.options["offset"]
        if before.kind == "Affine":
            before.options["offset"] = before.options["offset"] * scale + offset
            before.options["scale"] = before.options["scale"] * scale
        elif before.kind in ("Conv", "Dense") and (_weight(before).codes is None or (scale == 1).all()):
            _scale_weight(before, scale, offset)
        else:
            continue
        before.output = node.output
        graph.nodes.remove(node)


def _weight(node: Node) -> Value:
    weight = node.inputs[1]
    assert weight is not None, "layers have a weight"
    return weight


def _scale_weight(node: Node, scale: np.ndarray, offset: np.ndarray) -> None:
    """Multiply the output channels of a layer by `scale` and add `offset`."""
    weight = _weight(node)
    if (scale != 1).any():
        assert weight.array is not None, "only constants"
        array = weight.array * scale.reshape(-1, *[1] * (len(weight.shape) - 1))
        node.inputs[1] = Value(weight.name, weight.shape, array)
    bias = node.constant(2)
    total = offset if bias is None else bias * scale + offset
    node.inputs = [*node.inputs[:2], Value(f"{weight.name}/bias", total.shape, total)]


def _merge_activations(graph: Graph) -> None:
    for node in list(graph.nodes):
        before = _maker(graph, node.x) if node.kind in FUSED else None
        if before is None or before.kind not in FUSED_INTO or "activation" in before.options:
            continue
        if node.x.grid is None and graph.only_reader(node.x) is node:
            before.options["activation"] = node.kind
            before.output = node.output
            graph.nodes.remove(node)


def _reorder_dense(graph: Graph) -> None:
    """Let a layer behind flattened maps read their pixels row by row with the channels last."""
    for node in graph.nodes:
        reader = graph.only_reader(node.output) if node.kind == "Reshape" else None
        flat = node.x.is_map and node.output.shape == (1, int(np.prod(node.x.shape)))
        if not flat or reader is None or reader.kind != "Dense" or np.prod(node.x.shape[2:]) == 1:
            continue
        weight = _weight(reader)
        order = np.arange(weight.shape[1]).reshape(dims(node.x.shape[1:])).transpose(1, 2, 0).reshape(-1)
        assert weight.array is not None, "only constants"
        if weight.grid is not None and weight.grid.axis == 1:
            continue
        codes = None if weight.codes is None else weight.codes[:, order]
        reader.inputs[1] = Value(weight.name, weight.shape, weight.array[:, order], codes, weight.grid)
        node.options["channels_last"] = True


def _maker(graph: Graph, value: Value) -> Node | None:
    return next((node for node in graph.nodes if node.output is value), None)
