"""Rules for operators that move numbers without changing them, and for reductions.

Tensors with four axes have the channels last here and second in ONNX; all others have the same order in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Node, dims
from potstill.exporters.tflite.lowering import (
    FIRST,
    LAST,
    Lowering,
    Unsupported,
    axis_of,
    constant,
    integers,
    per_axis,
    shape_of,
)
from potstill.exporters.tflite.operators import Tensor


def reshape(lowering: Lowering, node: Node) -> None:
    """Another shape, in the order of ONNX; maps of one pixel or one channel are in that order anyway."""
    x = lowering.tensor(node.x)
    if not node.options.get("channels_last") and not _same_order(node.x.shape):
        x = lowering.transposed(x, FIRST)
    if _same_order(node.output.shape):
        result = lowering.reshaped(x, shape_of(node.output))
    else:
        result = lowering.transposed(lowering.reshaped(x, node.output.shape), LAST)
    lowering.put(node.output, result)


def _same_order(shape: tuple[int, ...]) -> bool:
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1


def transpose(lowering: Lowering, node: Node) -> None:
    """Axes in another order."""
    order = node.options.get("perm") or range(len(node.x.shape))[::-1]
    if node.x.is_map:
        order = [FIRST[order[axis]] for axis in LAST]
    lowering.put(node.output, lowering.transposed(lowering.tensor(node.x), list(order)))


def cut(lowering: Lowering, node: Node) -> None:
    """A part of a tensor, with steps."""
    rank, x = len(node.x.shape), lowering.tensor(node.x)
    starts, ends, axes, steps = (node.constant(position) for position in range(1, 5))
    if starts is None or ends is None:
        raise Unsupported("Slice with bounds that are computed from the image")
    ranges = [(0, side, 1) for side in node.x.shape]
    for number, start in enumerate(starts):
        axis = int(number if axes is None else axes[number]) % rank
        step = 1 if steps is None else int(steps[number])
        if step < 1:
            raise Unsupported("Slice with a negative step")
        ranges[axis] = slice(int(start), int(ends[number]), step).indices(node.x.shape[axis])
    result = lowering.like(node.output.name, shape_of(node.output), x.grid)
    begin, end, stride = (integers(name, per_axis(one, rank)) for name, one in _columns(ranges))
    lowering.add("STRIDED_SLICE", [x, begin, end, stride], result)
    lowering.put(node.output, result)


def _columns(ranges: list[tuple[int, int, int]]) -> list[tuple[str, list[int]]]:
    return [(name, [one[place] for one in ranges]) for place, name in enumerate(("begin", "end", "stride"))]


def pad(lowering: Lowering, node: Node) -> None:
    """A border of one number along any axes."""
    rank, x = len(node.x.shape), lowering.tensor(node.x)
    pads, value, axes = (node.constant(position) for position in range(1, 4))
    mode = node.options.get("mode", b"constant")
    if mode != b"constant" or pads is None or (np.asarray(pads) < 0).any():
        raise Unsupported(f"Pad with mode {mode.decode()}" if mode != b"constant" else "Pad that cuts off")
    places = [int(axis) % rank for axis in (range(rank) if axes is None else axes)]
    sides = [(0, 0)] * rank
    for place, begin, end in zip(places, pads[: len(places)], pads[len(places) :], strict=True):
        sides[place] = (int(begin), int(end))
    result = lowering.like(node.output.name, shape_of(node.output), x.grid)
    number = 0.0 if value is None else float(np.reshape(value, -1)[0])
    border = integers("paddings", per_axis(sides, rank))
    if number == 0:
        lowering.add("PAD", [x, border], result)
    else:
        lowering.add("PADV2", [x, border, _number(lowering, x, number)], result)
    lowering.put(node.output, result)


def _number(lowering: Lowering, x: Tensor, number: float) -> Tensor:
    if not lowering.integer or x.grid is None:
        return constant("border", np.array([number], np.float32))
    return constant("border", x.grid.codes(np.array([number])), x.grid)


def concat(lowering: Lowering, node: Node) -> None:
    """Tensors joined along an axis; in int8 all of them are on the grid of the result."""
    result = lowering.output(node.output)
    inputs = [lowering.requantized(lowering.tensor(value), result.grid) for value in node.inputs]
    rank = len(node.output.shape)
    lowering.add("CONCATENATION", inputs, result, Axis=axis_of(node.options["axis"] % rank, rank))


def mean(lowering: Lowering, node: Node) -> None:
    """The mean over some axes."""
    x = lowering.tensor(node.x)
    lowering.add("MEAN", [x, _axes(node)], lowering.output(node.output), KeepDims=_keeps(node))


def reduce_max(lowering: Lowering, node: Node) -> None:
    """The maximum over some axes."""
    x = lowering.tensor(node.x)
    result = lowering.like(node.output.name, shape_of(node.output), x.grid)
    lowering.add("REDUCE_MAX", [x, _axes(node)], result, KeepDims=_keeps(node))
    lowering.put(node.output, result)


def _axes(node: Node) -> Tensor:
    axes: tuple[int, ...] = node.options["axes"]
    left = [axis for axis in range(len(node.x.shape)) if axis not in axes]
    if node.x.is_map and not _keeps(node) and [axis for axis in LAST if axis in left] != left:
        raise Unsupported(f"{node.kind} over the axes {list(axes)} of maps without keeping them")
    return integers("axes", sorted(axis_of(axis, len(node.x.shape)) for axis in axes))


def _keeps(node: Node) -> bool:
    return bool(node.options["keepdims"])


def resize(lowering: Lowering, node: Node) -> None:
    """Maps of another size."""
    x, code, options = lowering.tensor(node.x), *_resize(node)
    result = lowering.like(node.output.name, shape_of(node.output), x.grid)
    lowering.add(code, [x, integers("size", node.output.shape[2:])], result, **options)
    lowering.put(node.output, result)


def _resize(node: Node) -> tuple[str, dict[str, Any]]:
    """Return the operator and its options."""
    mode = node.options.get("mode", b"nearest").decode()
    where = node.options.get("coordinate_transformation_mode", b"half_pixel").decode()
    nearest = node.options.get("nearest_mode", b"round_prefer_floor").decode()
    if node.x.is_map and not node.options.get("antialias"):
        if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            return "RESIZE_BILINEAR", {
                "AlignCorners": where == "align_corners",
                "HalfPixelCenters": where.endswith("half_pixel"),
            }
        if mode == "nearest" and (where, nearest) == ("asymmetric", "floor"):
            return "RESIZE_NEAREST_NEIGHBOR", {"AlignCorners": False, "HalfPixelCenters": False}
    smooth = " with antialias" if node.options.get("antialias") else ""
    raise Unsupported(f"Resize with mode {mode}, {where}, {nearest}{smooth} to {dims(node.output.shape[2:])}")


def requantize(lowering: Lowering, node: Node) -> None:
    """A change of grids."""
    lowering.put(node.output, lowering.requantized(lowering.tensor(node.x), node.output.grid))
