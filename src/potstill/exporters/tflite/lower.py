"""`Graph` to operators of TensorFlow Lite: a rule for each kind of node; what has none is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from potstill.errors import ModelError
from potstill.exporters.tflite import layers, pointwise, shapes, windows
from potstill.exporters.tflite.graph import Graph, Grid, Node
from potstill.exporters.tflite.lowering import Lowering, Rule, Unsupported, shape_of
from potstill.exporters.tflite.operators import Operator, Tensor
from potstill.words import plural

RULES: Mapping[str, Rule] = {
    "Conv": layers.conv,
    "Dense": layers.dense,
    "Affine": layers.affine,
    "Add": pointwise.pair("ADD"),
    "Sub": pointwise.pair("SUB"),
    "Mul": pointwise.pair("MUL"),
    "Relu": pointwise.function("RELU"),
    "Relu6": pointwise.function("RELU6"),
    "Sigmoid": pointwise.function("LOGISTIC"),
    "HardSwish": pointwise.function("HARD_SWISH"),
    "HardSigmoid": pointwise.hard_sigmoid,
    "Softmax": pointwise.softmax,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "Mean": shapes.mean,
    "ReduceMax": shapes.reduce_max,
    "Pad": shapes.pad,
    "Concat": shapes.concat,
    "Slice": shapes.cut,
    "Reshape": shapes.reshape,
    "Transpose": shapes.transpose,
    "Resize": shapes.resize,
    "Requantize": shapes.requantize,
}

BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class Lowered:
    """The operators of a file, in order, with its input and output."""

    operators: list[Operator]
    image: Tensor
    result: Tensor


def lower(graph: Graph, *, integer: bool, name: str, outside: np.dtype = BYTE) -> Lowered:
    """Return the operators of a simplified graph.

    integer: int8 inside, and `outside` (uint8 or int8) for image and result; all values have grids then. name: of the
        model in errors.
    Raises `ModelError` that names every operator without a rule.
    """
    lowering = Lowering(integer=integer)
    image = Tensor("image", shape_of(graph.image), lowering.dtype, grid=graph.image.grid if integer else None)
    entry = _outside(image, outside) if integer else image
    if entry is not image:
        lowering.add("QUANTIZE", [entry], image)
    lowering.put(graph.image, image)
    missing: dict[str, int] = {}
    for node in graph.nodes:
        _lower(lowering, node, missing)
    if missing:
        raise ModelError(_refused(name, missing))
    result = lowering.tensor(graph.logits)
    if integer and outside == BYTE:
        inner, result = result, _outside(result, outside)
        lowering.add("QUANTIZE", [inner], result)
    result.name = graph.logits.name
    return Lowered(_tidy(lowering.operators), entry, result)


def _lower(lowering: Lowering, node: Node, missing: dict[str, int]) -> None:
    """Add the operators of a node; what cannot be is counted in `missing`."""
    try:
        if node.kind not in RULES:
            raise Unsupported(node.kind)
        RULES[node.kind](lowering, node)
    except Unsupported as problem:
        missing[str(problem)] = missing.get(str(problem), 0) + 1
        lowering.output(node.output)  # so that the others are seen too


def _outside(tensor: Tensor, dtype: np.dtype) -> Tensor:
    """Return the tensor that stands for an int8 one outside; itself if that is int8 too."""
    if dtype == tensor.dtype or tensor.grid is None:
        return tensor
    grid = Grid(tensor.grid.scale, tensor.grid.zero + 128)
    return Tensor(f"{tensor.name}/{dtype}", tensor.shape, dtype, grid=grid)


def _tidy(operators: list[Operator]) -> list[Operator]:
    """Skip reshapes whose input is a reshape, and drop operators whose result nobody reads."""
    made = {id(output): operator for operator in operators for output in operator.outputs}
    for operator in operators:
        before = made.get(id(operator.inputs[0]))
        if operator.code == "RESHAPE" and before is not None and before.code == "RESHAPE":
            operator.inputs[0] = before.inputs[0]
    read: set[int] = {id(operators[-1].outputs[0])} if operators else set()
    kept = []
    for operator in reversed(operators):
        if any(id(output) in read for output in operator.outputs):
            kept.append(operator)
            read |= {id(tensor) for tensor in operator.inputs}
    return kept[::-1]


def _refused(name: str, missing: dict[str, int]) -> str:
    listed = "; ".join(f"{problem} ({plural(count, 'time')})" for problem, count in sorted(missing.items()))
    return (
        f"{name} has operators that potstill cannot write for TensorFlow Lite: {listed}. Use ONNX, OpenVINO or "
        "ExecuTorch, or distill into a convolutional student: resnet20-cifar, MobileNet V1 to V3, EfficientNet-Lite."
    )
