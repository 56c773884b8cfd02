"""How each ONNX operator becomes instructions of `runner.js`: a function of (writer, node, attributes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from potstill.report.runner.program import Unsupported, Writer, strides_of

Attributes = dict[str, Any]
Rule = Callable[[Writer, onnx.NodeProto, Attributes], Any]


def _unary(kind: str, **defaults: float) -> Rule:
    """Return the rule of a function of single values; defaults: its attributes."""

    def rule(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
        given: Attributes = {name: float(more.get(name, value)) for name, value in defaults.items()}
        to.step("map", [node.input[0]], node.output[0], function=kind, **given)

    return rule


def _binary(kind: str) -> Rule:
    def rule(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
        left, right, *others = node.input
        for other in others:  # Min and Max take any number
            left, right = _pair(to, kind, left, right, ""), other
        _pair(to, kind, left, right, node.output[0])

    return rule


def _pair(to: Writer, kind: str, left: str, right: str, out: str) -> str:
    shape = np.broadcast_shapes(to.shape(left), to.shape(right))
    strides = [_broadcast(to.shape(name), shape) for name in (left, right)]
    return to.step("pair", [left, right], out, shape, function=kind, strides=strides)


def _broadcast(shape: Sequence[int], wide: Sequence[int]) -> list[int]:
    """Return the strides that repeat a tensor to the shape `wide`."""
    full = [1] * (len(wide) - len(shape)) + list(shape)
    return [0 if side == 1 else stride for side, stride in zip(full, strides_of(full), strict=True)]


def _gelu(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    to.step("map", [node.input[0]], node.output[0], function=f"Gelu{more.get('approximate', 'none')}")


def _clip(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    names = [*node.input, "", ""][1:3]
    low, high = (float(to.constant(name)) if name else None for name in names)
    to.step("clip", [node.input[0]], node.output[0], low=low, high=high)


def _relu(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    to.step("clip", [node.input[0]], node.output[0], low=0.0, high=None)


def _window(to: Writer, node: onnx.NodeProto, more: Attributes, kernel: Sequence[int]) -> Attributes:
    """Return kernel, strides, dilations and the pads before of a sliding window over [N, C, H, W]."""
    if len(kernel) != 2:
        raise Unsupported(f"{node.op_type} in {len(kernel)} dimensions")
    strides, steps = more.get("strides", [1, 1]), more.get("dilations", [1, 1])
    before = list(more.get("pads", [0, 0, 0, 0]))[:2]
    if more.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        sizes = zip(to.shape(node.input[0])[2:], to.shape(node.output[0])[2:], kernel, strides, steps, strict=True)
        total = [max(0, (out - 1) * by + (side - 1) * step + 1 - size) for size, out, side, by, step in sizes]
        before = [(one + (more["auto_pad"] == "SAME_LOWER")) // 2 for one in total]
    source = list(to.shape(node.input[0]))
    return {"from": source, "kernel": list(kernel), "strides": list(strides), "dilations": list(steps), "pads": before}


def _conv(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    weight, out = to.shape(node.input[1]), node.output[0]
    window = _window(to, node, more, weight[2:])
    to.step("conv", node.input, out, group=more.get("group", 1), **window)
    to.program.macs += math.prod(weight[1:]) * math.prod(to.shape(out))


def _pool(kind: str) -> Rule:
    def rule(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
        window = _window(to, node, more, more["kernel_shape"])
        window["pads"] += list(more.get("pads", [0, 0, 0, 0]))[2:]
        whole = bool(more.get("count_include_pad", 0))
        to.step("pool", [node.input[0]], node.output[0], function=kind, whole=whole, **window)

    return rule


def _matmul(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    left, right, out = node.input[0], node.input[1], node.output[0]
    sides = [to.shape(name) for name in (left, right)]
    if len(sides[0]) < 2 or len(sides[1]) < 2:
        raise Unsupported("MatMul of a vector")
    shape = to.shape(out)
    # Matrices of the second factor are stored by columns, so that both are read in the order of memory.
    right = _transposed(to, right, [*range(len(sides[1]) - 2), len(sides[1]) - 1, len(sides[1]) - 2], "")
    batch = shape[:-2]
    offsets = [_matrices(side[:-2], batch) for side in sides]
    to.step("matmul", [left, right], out, rows=shape[-2], depth=sides[0][-1], columns=shape[-1], offsets=offsets)
    to.program.macs += math.prod(shape) * sides[0][-1]


def _matrices(shape: Sequence[int], batch: Sequence[int]) -> list[int]:
    """Return the number of the matrix that each product of a batch takes."""
    numbers = np.arange(math.prod(shape)).reshape(tuple(shape))
    return np.broadcast_to(numbers, tuple(batch)).ravel().tolist()


def _gemm(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    if more.get("alpha", 1.0) != 1.0 or more.get("beta", 1.0) != 1.0 or more.get("transA"):
        raise Unsupported("Gemm with factors")
    left, right, *bias = node.input
    if not more.get("transB"):
        right = _transposed(to, right, [1, 0], "")
    rows, columns = to.shape(node.output[0])
    size = {"rows": rows, "depth": to.shape(left)[1], "columns": columns, "offsets": [[0], [0]]}
    product = to.step("matmul", [left, right], "" if bias else node.output[0], (rows, columns), **size)
    to.program.macs += rows * columns * size["depth"]
    if bias:
        _pair(to, "Add", product, bias[0], node.output[0])


def _reshape(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    to.step("reshape", [node.input[0]], node.output[0])


def _cast(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    if more["to"] != onnx.TensorProto.FLOAT:
        raise Unsupported("Cast to another type than float32")
    _reshape(to, node, more)


def _transpose(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    order = more.get("perm", [*range(len(to.shape(node.input[0])))][::-1])
    _transposed(to, node.input[0], order, node.output[0])


def _transposed(to: Writer, name: str, order: Sequence[int], out: str) -> str:
    shape, strides = to.shape(name), strides_of(to.shape(name))
    return to.read(name, out, [shape[axis] for axis in order], [strides[axis] for axis in order])


def _expand(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    shape = to.shape(node.output[0])
    to.read(node.input[0], node.output[0], shape, _broadcast(to.shape(node.input[0]), shape))


def _slice(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    shape, out = to.shape(node.input[0]), node.output[0]
    starts, ends = (to.constant(name).tolist() for name in node.input[1:3])
    axes, steps = ([*node.input, "", ""][place] for place in (3, 4))
    cuts = [slice(None)] * len(shape)
    rows = zip(
        to.constant(axes).tolist() if axes else range(len(starts)),
        starts,
        ends,
        to.constant(steps).tolist() if steps else [1] * len(starts),
        strict=True,
    )
    for axis, begin, end, step in rows:
        cuts[axis] = slice(begin, None if step < 0 and end < -shape[axis] else end, step)
    bounds = [cut.indices(side) for cut, side in zip(cuts, shape, strict=True)]
    strides = strides_of(shape)
    start = sum(bound[0] * stride for bound, stride in zip(bounds, strides, strict=True))
    to.read(node.input[0], out, to.shape(out), [b[2] * s for b, s in zip(bounds, strides, strict=True)], start=start)


def _split(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    strides = strides_of(to.shape(node.input[0]))
    axis, start = more.get("axis", 0), 0
    for out in node.output:
        to.read(node.input[0], out, to.shape(out), strides, start=start * strides[axis])
        start += to.shape(out)[axis]


def _gather(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    shape, strides = to.shape(node.input[0]), strides_of(to.shape(node.input[0]))
    index, axis = to.constant(node.input[1]), more.get("axis", 0) % len(shape)
    steps = set(np.diff(index.ravel()).tolist())
    if index.ndim > 1 or len(steps) > 1:
        raise Unsupported("Gather in an order of its own")
    along = [*steps, 1][0] * strides[axis]
    first = int(index.flat[0]) % shape[axis]
    kept = [*strides[:axis], *([along] if index.ndim else []), *strides[axis + 1 :]]
    to.read(node.input[0], node.output[0], to.shape(node.output[0]), kept, start=first * strides[axis])


def _concat(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    out, start, starts = node.output[0], 0, []
    axis = more["axis"] % len(to.shape(out))
    for name in node.input:
        starts.append(start * strides_of(to.shape(out))[axis])
        start += to.shape(name)[axis]
    to.place(node.input, out, starts)


def _pad(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    pads = to.constant(node.input[1]).tolist()
    value, axes = ([*node.input, "", ""][place] for place in (2, 3))
    if more.get("mode", "constant") != "constant" or min(pads) < 0 or axes:
        raise Unsupported("Pad that is not with a constant")
    fill = float(to.constant(value)) if value else 0.0
    before = zip(pads, strides_of(to.shape(node.output[0])), strict=False)
    to.place([node.input[0]], node.output[0], [sum(pad * stride for pad, stride in before)], fill=fill)


def _reduce(kind: str) -> Rule:
    def rule(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
        given = to.constant(node.input[1]).tolist() if len(node.input) > 1 else more.get("axes")
        _reduced(to, node, kind, given)

    return rule


def _reduced(to: Writer, node: onnx.NodeProto, kind: str, axes: Sequence[int] | None) -> None:
    shape = to.shape(node.input[0])
    gone = sorted(axis % len(shape) for axis in (axes or range(len(shape))))
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    source = node.input[0]
    if [*kept, *gone] != [*range(len(shape))]:
        source = _transposed(to, source, [*kept, *gone], "")
    to.step("reduce", [source], node.output[0], function=kind, inner=math.prod(shape[axis] for axis in gone))


def _global_pool(kind: str) -> Rule:
    def rule(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
        _reduced(to, node, kind, [*range(2, len(to.shape(node.input[0])))])

    return rule


def _softmax(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    shape = to.shape(node.input[0])
    if more.get("axis", -1) % len(shape) != len(shape) - 1:
        raise Unsupported("Softmax along another axis than the last")
    to.step("softmax", [node.input[0]], node.output[0], inner=shape[-1])


def _layer_norm(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    shape = to.shape(node.input[0])
    inner = math.prod(shape[more.get("axis", -1) % len(shape) :])
    _normalised(to, node, shape, inner, float(more.get("epsilon", 1e-5)), lambda name: name)


def _instance_norm(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    shape = to.shape(node.input[0])
    inner, sides = math.prod(shape[2:]), (-1, *[1] * (len(shape) - 2))
    held = {name: to.hold(to.constant(name).reshape(sides)) for name in node.input[1:]}
    _normalised(to, node, shape, inner, float(more.get("epsilon", 1e-5)), held.__getitem__)


def _normalised(
    to: Writer, node: onnx.NodeProto, shape: Sequence[int], inner: int, epsilon: float, of: Callable[[str], str]
) -> None:
    done = to.step("normalise", [node.input[0]], "", shape, inner=inner, epsilon=epsilon)
    scale, *bias = [name for name in node.input[1:] if name]
    scaled = _pair(to, "Mul", done, of(scale), "" if bias else node.output[0])
    if bias:
        _pair(to, "Add", scaled, of(bias[0]), node.output[0])


def _batch_norm(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    scale, shift, mean, variance = (to.constant(name).astype(np.float64) for name in node.input[1:])
    factor = scale / np.sqrt(variance + more.get("epsilon", 1e-5))
    sides = (-1, *[1] * (len(to.shape(node.input[0])) - 2))
    held = [to.hold(one.reshape(sides)) for one in (factor, shift - mean * factor)]
    _pair(to, "Add", _pair(to, "Mul", node.input[0], held[0], ""), held[1], node.output[0])


def _quantize(to: Writer, node: onnx.NodeProto, _: Attributes) -> None:
    scale, *zero = (to.constant(name) for name in node.input[1:])
    kind = np.iinfo(zero[0].dtype if zero else np.uint8)
    if scale.size > 1:
        raise Unsupported("QuantizeLinear by channel")
    at = int(zero[0].flat[0]) if zero else 0
    grid = {"scale": float(scale.flat[0]), "zero": at, "low": int(kind.min), "high": int(kind.max)}
    to.step("quantize", [node.input[0]], node.output[0], **grid)


def _dequantize(to: Writer, node: onnx.NodeProto, more: Attributes) -> None:
    scale, *zero = (to.constant(name) for name in node.input[1:])
    shape = to.shape(node.output[0])
    inner = math.prod(shape[more.get("axis", 1) % len(shape) + 1 :]) if scale.size > 1 else 1
    zeros = [int(one) for one in zero[0].ravel()] if zero else [0]
    if any(zeros) and len(set(zeros)) > 1 or more.get("block_size"):
        raise Unsupported("DequantizeLinear by blocks")
    step = to.hold(scale.ravel())
    to.step("dequantize", [node.input[0], step], node.output[0], zero=zeros[0], inner=inner)


UNARY = ("Sigmoid", "Tanh", "HardSwish", "Erf", "Sqrt", "Exp", "Neg", "Abs", "Reciprocal", "Softplus", "Softsign")
PAIRS = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")

RULES: dict[str, Rule] = {
    **{name: _unary(name) for name in UNARY},
    **{name: _binary(name) for name in PAIRS},
    **dict.fromkeys(VIEWS, _reshape),
    "Cast": _cast,
    "HardSigmoid": _unary("HardSigmoid", alpha=0.2, beta=0.5),
    "LeakyRelu": _unary("LeakyRelu", alpha=0.01),
    "Elu": _unary("Elu", alpha=1.0),
    "Gelu": _gelu,
    "Relu": _relu,
    "Clip": _clip,
    "Conv": _conv,
    "MaxPool": _pool("max"),
    "AveragePool": _pool("mean"),
    "GlobalAveragePool": _global_pool("mean"),
    "GlobalMaxPool": _global_pool("max"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "ReduceMax": _reduce("max"),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Transpose": _transpose,
    "Expand": _expand,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Concat": _concat,
    "Pad": _pad,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "BatchNormalization": _batch_norm,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
