"""Rules for layers with weights, and for one factor and offset per channel.

In int8, weights have one scale per output channel and a zero point of 0; a bias is int32 with the scale input x weight.
A dense layer is a 1x1 convolution there, because older runtimes have one scale for the weights of FULLY_CONNECTED; and
a factor per channel is a 1x1 depthwise convolution, which is exact to the last step.
"""

from __future__ import annotations

import numpy as np

from potstill.exporters.tflite.graph import Grid, Node, Value, shaped, symmetric
from potstill.exporters.tflite.lowering import FLOAT, Lowering, Unsupported, activation, constant, shape_of
from potstill.exporters.tflite.operators import Tensor
from potstill.exporters.tflite.windows import Windows, padded

LARGEST_BIAS = 2**30


def conv(lowering: Lowering, node: Node) -> None:
    """A convolution: depthwise, dense over channels, or in groups, which are split and joined again."""
    weight = _weight(node)
    windows = Windows.of(node, weight.shape[2:])
    x = padded(lowering, lowering.tensor(node.x), windows)
    groups = node.options.get("group", 1)
    result = lowering.output(node.output)
    if groups == 1:
        _conv(lowering, x, weight, node.constant(2), result, windows, node)
    elif groups == x.shape[3]:
        _depthwise(lowering, x, weight, node.constant(2), result, windows, node)
    else:
        _grouped(lowering, x, groups, result, windows, node)


def _conv(
    lowering: Lowering,
    x: Tensor,
    weight: Value,
    bias: np.ndarray | None,
    result: Tensor,
    windows: Windows,
    node: Node,
) -> None:
    parameters = _parameters(lowering, x, weight, bias, (0, 2, 3, 1))
    lowering.add("CONV_2D", [x, *parameters], result, **windows.options, **_dilation(windows), **activation(node))


def _depthwise(
    lowering: Lowering,
    x: Tensor,
    weight: Value,
    bias: np.ndarray | None,
    result: Tensor,
    windows: Windows,
    node: Node,
) -> None:
    parameters = _parameters(lowering, x, weight, bias, (1, 2, 3, 0))
    options = {**windows.options, **_dilation(windows), **activation(node)}
    multiplier = weight.shape[0] // x.shape[3]
    lowering.add("DEPTHWISE_CONV_2D", [x, *parameters], result, DepthMultiplier=multiplier, **options)


def _grouped(lowering: Lowering, x: Tensor, groups: int, result: Tensor, windows: Windows, node: Node) -> None:
    weight, bias = _weight(node), node.constant(2)
    shape = (*x.shape[:3], x.shape[3] // groups)
    parts = [lowering.like(f"{x.name}/group{group}", shape, x.grid) for group in range(groups)]
    axis = constant("axis", np.array(3, np.int32))
    lowering.add("SPLIT", [axis, x], *parts, NumSplits=groups)
    outputs, count = [], weight.shape[0] // groups
    for group, part in enumerate(parts):
        rows = slice(group * count, (group + 1) * count)
        name = f"{result.name}/group{group}"
        outputs.append(lowering.like(name, (*result.shape[:3], count), result.grid))
        _conv(lowering, part, _rows(weight, rows), None if bias is None else bias[rows], outputs[-1], windows, node)
    lowering.add("CONCATENATION", outputs, result, Axis=3)


def dense(lowering: Lowering, node: Node) -> None:
    """A dense layer on vectors [1, C]."""
    weight = _weight(node)
    x, result = lowering.tensor(node.x), lowering.output(node.output)
    if len(x.shape) != 2:
        raise Unsupported(f"a matrix product of tensors with {len(x.shape)} axes")
    if not lowering.integer:
        parameters = _parameters(lowering, x, weight, node.constant(2), (0, 1))
        lowering.add("FULLY_CONNECTED", [x, *parameters], result, **activation(node))
        return
    pixel = lowering.reshaped(x, (1, 1, 1, x.shape[1]))
    maps = lowering.like(f"{result.name}/pixel", (1, 1, 1, result.shape[1]), result.grid)
    windows = Windows((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), False)
    _conv(lowering, pixel, _as_kernel(weight), node.constant(2), maps, windows, node)
    lowering.put(node.output, lowering.reshaped(maps, result.shape))


def affine(lowering: Lowering, node: Node) -> None:
    """`scale * x + offset`, one of each per channel."""
    scale, offset = node.options["scale"], node.options["offset"]
    x, result = lowering.tensor(node.x), lowering.output(node.output)
    if lowering.integer:
        _affine_int8(lowering, x, result, scale, offset, node)
        return
    has_offset = bool((offset != 0).any())
    if (scale != 1).any() or not has_offset:
        target = lowering.like(f"{result.name}/scaled", x.shape, None) if has_offset else result
        factor = constant(f"{result.name}/scale", scale.astype(FLOAT))
        lowering.add("MUL", [x, factor], target, **({} if has_offset else activation(node)))
        x = target
    if has_offset:
        lowering.add("ADD", [x, constant(f"{result.name}/offset", offset.astype(FLOAT))], result, **activation(node))


def _affine_int8(
    lowering: Lowering, x: Tensor, result: Tensor, scale: np.ndarray, offset: np.ndarray, node: Node
) -> None:
    channels = len(scale)
    maps = lowering.reshaped(x, (1, 1, 1, channels)) if len(x.shape) == 2 else x
    target = result if len(x.shape) == 4 else lowering.like(f"{result.name}/pixel", maps.shape, result.grid)
    weight = Value(f"{result.name}/scale", (channels, 1, 1, 1), scale.reshape(-1, 1, 1, 1))
    windows = Windows((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), False)
    _depthwise(lowering, maps, weight, offset, target, windows, node)
    lowering.put(node.output, lowering.reshaped(target, shape_of(node.output)))


def _parameters(
    lowering: Lowering, x: Tensor, weight: Value, bias: np.ndarray | None, order: tuple[int, ...]
) -> list[Tensor]:
    """Return the tensors of weight and bias. order: the axes of the weight; output channels are the first in ONNX."""
    assert weight.array is not None, "weights are constant"
    full = np.zeros(weight.shape[0]) if bias is None else np.asarray(bias, np.float64).reshape(-1)
    if not lowering.integer:
        data = weight.array.astype(FLOAT).transpose(order)
        return [constant(weight.name, data), constant(f"{weight.name}/bias", full.astype(FLOAT))]
    assert x.grid is not None, "int8 tensors have a grid"
    codes, scale = _codes(weight, full, float(x.grid.scale[0]))
    steps = (x.grid.scale[0] * scale).astype(np.float32)
    whole = np.rint(full / (np.float64(x.grid.scale[0]) * scale)).astype(np.int32)
    none = np.zeros(len(scale), np.int64)
    return [
        constant(weight.name, codes.transpose(order), Grid(scale, none, order.index(0))),
        constant(f"{weight.name}/bias", whole, Grid(steps, none, 0)),
    ]


def _codes(weight: Value, bias: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the int8 codes of a weight and the scale of each output channel: those of the ONNX file, if it has them.

    A channel of zeros may have any scale; a scale for which the bias does not fit into 32 bits is widened.
    """
    assert weight.array is not None, "weights are constant"
    codes, grid = weight.codes, weight.grid
    if (
        codes is None
        or grid is None
        or codes.dtype != np.int8
        or grid.zero.any()
        or (len(grid.scale) > 1 and grid.axis)
    ):
        codes, grid = symmetric(weight.array, 0)
    scale = np.broadcast_to(grid.scale, len(codes)).copy()
    empty = ~codes.reshape(len(codes), -1).any(1)
    if not empty.all():
        scale[empty] = np.median(scale[~empty])
    narrow = np.abs(bias) / (step * scale) > LARGEST_BIAS
    scale[narrow] = (np.abs(bias[narrow]) / (step * LARGEST_BIAS)).astype(np.float32)
    if narrow.any():
        wide = np.rint(weight.array / shaped(scale, codes.ndim, 0)).clip(-127, 127).astype(np.int8)
        codes = np.where(shaped(narrow, codes.ndim, 0), wide, codes)
    return codes, scale


def _weight(node: Node) -> Value:
    weight = node.inputs[1]
    if weight is None or weight.array is None:
        raise Unsupported(f"{node.kind} whose weight is computed from the image")
    return weight


def _rows(weight: Value, rows: slice) -> Value:
    """Return some output channels of a weight."""
    assert weight.array is not None, "weights are constant"
    grid, codes = weight.grid, weight.codes
    if grid is not None and len(grid.scale) > 1 and grid.axis == 0:
        grid = Grid(grid.scale[rows], grid.zero[rows], 0)
    array = weight.array[rows]
    name = f"{weight.name}/{rows.start}"
    return Value(name, array.shape, array, None if codes is None else codes[rows], grid)


def _as_kernel(weight: Value) -> Value:
    """Return a weight [out, in] as that of a 1x1 convolution."""
    assert weight.array is not None, "weights are constant"
    codes = None if weight.codes is None else weight.codes[:, :, None, None]
    return Value(weight.name, (*weight.shape, 1, 1), weight.array[:, :, None, None], codes, weight.grid)


def _dilation(windows: Windows) -> dict[str, int]:
    return {"DilationHFactor": windows.dilation[0], "DilationWFactor": windows.dilation[1]}
