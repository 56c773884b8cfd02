"""The preprocessing of a card as nodes of an ONNX graph: uint8 pixels of any size in, the input of the network out.

Resizing is written as two products with matrices of weights, which the graph computes from the size of the image:
Pillow's bilinear filter with antialias, in Pillow's order (within rows first, rounded to 8 bits, then columns). ONNX's
own `Resize` cannot start at a fraction of a pixel, as the centred box of `ImageOps.fit` does, and rounds elsewhere.
With the matrices the pixels are those that the network was trained on, in every runtime that multiplies matrices, and
as fast as with `Resize`. Single pixels differ by 1 of 255: halves that are rounded the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from potstill.data.squares import BORDER, window_of
from potstill.model_files.onnx_input import INPUT, INSIDE, PREPARED
from potstill.models.card import Card, Fit

LUMA = (19595, 38470, 7471, 65536)
"""Pillow's integer weights of red, green and blue, in 1/65536; the last is for an image that is grey already."""
BLOCKS = 8
"""Most blocks that the results of a row or column are made in."""


def attach(model: onnx.ModelProto, card: Card) -> None:
    """Make a prepared graph take `image` uint8 [batch, height, width, channels] of any size, in place.

    channels: 1 (grey) or 3 (RGB); either becomes what the network takes. Everything else in the graph is unchanged.
    """
    graph = model.graph
    for node in graph.node:
        node.input[:] = [PREPARED if name == INPUT else name for name in node.input]
    built = _Builder()
    _prepare(built, card)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*built.nodes, *rest])
    graph.initializer.extend(built.constants.values())
    del graph.input[:]
    graph.input.append(_raw_input())


def preprocessing(card: Card, *, opset: int) -> onnx.ModelProto:
    """Return the preprocessing alone as a model: uint8 [batch, height, width, channels] to float32 in 0..1."""
    built = _Builder()
    _prepare(built, card)
    out = helper.make_tensor_value_info(PREPARED, TensorProto.FLOAT, ["batch", card.channels, *card.size])
    graph = helper.make_graph(built.nodes, "preprocessing", [_raw_input()], [out], [*built.constants.values()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _raw_input() -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", "channels"])


class _Builder:
    """Collects nodes and constants; every name starts with `INSIDE`, by which they are found and removed again."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def __call__(self, kind: str, *inputs: Any, out: str = "", **attributes: Any) -> str:
        """Add an operator and return the name of its result; inputs that are not names are constants."""
        out = out or f"{INSIDE}{len(self.nodes)}"
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(helper.make_node(kind, names, [out], **attributes))
        return out

    def _constant(self, value: Any) -> str:
        values = np.asarray(value)
        values = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
        key = f"{INSIDE}{values.dtype.char}{values.shape}{values.tolist()}"
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(values, f"{INSIDE}c{len(self.constants)}")
        return self.constants[key].name


def _prepare(do: _Builder, card: Card) -> None:
    """Add the nodes from `INPUT` to `PREPARED`."""
    window = window_of(card.crop, card.resize, card.fit)
    image, turned = _turned(do, card.fit, window) if card.crop[0] == card.crop[1] else (INPUT, "")
    height, width = (do("Shape", image, start=axis, end=axis + 1) for axis in (1, 2))
    rows = _Axis(card.crop[0], window[0], window[1], height, width)
    columns = _Axis(card.crop[1], window[1], window[0], width, height)
    places = [_place(do, card.fit, axis) for axis in (rows, columns)]
    pixels = _resampled(do, image, (rows, columns), places, rounded=True)
    if card.fit == "letterbox":
        inside = do("And", do("Unsqueeze", places[0].inside, [1]), do("Unsqueeze", places[1].inside, [0]))
        pixels = do("Where", inside, pixels, float(BORDER))
    if turned:
        pixels = do("Where", turned, do("Transpose", pixels, perm=[0, 1, 3, 2]), pixels)
    pixels = do("Div", _channels(do, pixels, card.channels), 255.0)
    if card.size != card.crop:
        pixels = _to_size(do, pixels, card)
    do("Reshape", pixels, [-1, card.channels, *card.size], out=PREPARED)


def _turned(do: _Builder, fit: Fit, window: tuple[int, int]) -> tuple[str, str]:
    """Return the image with rows and columns exchanged where Pillow resizes columns first, and whether that is so.

    Since version 12, Pillow does so if rows lose more than twice as many pixels as columns.
    """
    height, width = (do("Shape", INPUT, start=axis, end=axis + 1) for axis in (1, 2))
    side = window[0]
    sides: list[Any] = [[side], [side]]
    if fit == "letterbox":
        sides = [_covered(do, _Axis(side, side, side, *pair)) for pair in ((height, width), (width, height))]
    more, less = do("Sub", height, sides[0]), do("Max", do("Sub", width, sides[1]), [0])
    turned = do("Squeeze", do("And", do("Greater", more, [0]), do("Greater", more, do("Mul", less, [2]))))
    branches = {
        "then_branch": helper.make_node("Transpose", [INPUT], [f"{INSIDE}turned"], perm=[0, 2, 1, 3]),
        "else_branch": helper.make_node("Identity", [INPUT], [f"{INSIDE}upright"]),
    }
    graphs: dict[str, Any] = {name: _branch(name, node) for name, node in branches.items()}
    return do("If", turned, **graphs), turned


def _branch(name: str, node: NodeProto) -> onnx.GraphProto:
    result = helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, ["n", "h", "w", "c"])
    return helper.make_graph([node], name, [], [result])


def _channels(do: _Builder, pixels: str, channels: int) -> str:
    """Return pixels [N, 1 or 3, h, w] with the channels of the network."""
    if channels == 3:
        return do("Expand", pixels, [1, 3, 1, 1])
    grey = do("Cast", do("Equal", do("Shape", pixels, start=1, end=2), [1]), to=TensorProto.INT64)
    weight = do("Slice", [float(one) for one in LUMA], do("Mul", grey, [3]), do("Add", grey, [3]))
    summed = do("ReduceSum", do("Mul", pixels, do("Reshape", weight, [1, -1, 1, 1])), [1], keepdims=1)
    return do("Floor", do("Div", do("Add", summed, 32768.0), 65536.0))


def _to_size(do: _Builder, pixels: str, card: Card) -> str:
    """Return the crop at the input size of the network, not rounded, as `Classifier.resize` makes it."""
    pairs = zip(card.size, card.crop, strict=True)
    axes = [_Axis(size, size, 0, do("Identity", [crop]), "") for size, crop in pairs]
    places = [_place(do, "stretch", axis) for axis in axes]
    return _resampled(do, do("Transpose", pixels, perm=[0, 2, 3, 1]), axes, places, rounded=False)


@dataclass(frozen=True)
class _Axis:
    """Rows or columns: `out` results, the middle of a `window` which is `across` the other way.

    length, other: names of the number of source pixels [1] this way and the other.
    """

    out: int
    window: int
    across: int
    length: str
    other: str


@dataclass(frozen=True)
class _Place:
    """Names of float tensors: `centre` [out] of each result in source pixels; `scale` [1], source pixels a result.

    inside: bool [out], of a letterbox: which results show the image.
    """

    centre: str
    scale: str
    inside: str = ""


def _place(do: _Builder, fit: Fit, axis: _Axis) -> _Place:
    """Return where the results of an axis lie, as `data.squares.fitted` has them."""
    length = do("Cast", axis.length, to=TensorProto.FLOAT)
    at = do("Add", do("Range", 0.0, float(axis.out), 1.0), (axis.window - axis.out) // 2 + 0.5)
    if fit == "letterbox":
        return _letterbox(do, axis, length, at)
    box = length
    if fit == "crop":
        other = do("Cast", axis.other, to=TensorProto.FLOAT)
        box = do("Min", length, do("Mul", other, [axis.window / axis.across]))
    scale = do("Div", box, [float(axis.window)])
    start = do("Mul", do("Sub", length, box), [0.5])
    return _Place(do("Add", start, do("Mul", at, scale)), scale)


def _letterbox(do: _Builder, axis: _Axis, length: str, at: str) -> _Place:
    covered = _covered(do, axis)
    first = do("Div", do("Sub", [axis.window], covered), [2])
    covered, first = (do("Cast", value, to=TensorProto.FLOAT) for value in (covered, first))
    at = do("Sub", at, first)
    inside = do("And", do("Greater", at, 0.0), do("Less", at, covered))
    at = do("Max", do("Min", at, do("Sub", covered, 0.5)), 0.5)
    scale = do("Div", length, covered)
    return _Place(do("Mul", at, scale), scale, inside)


def _covered(do: _Builder, axis: _Axis) -> str:
    """Return how many results the image covers: `data.squares.inner_size`, in whole numbers."""
    doubled = do("Mul", axis.other, [2])
    rounded = do("Div", do("Add", do("Mul", axis.length, [2 * axis.across]), axis.other), doubled)
    return do("Max", do("Min", rounded, [axis.window]), [1])


def _resampled(do: _Builder, pixels: str, axes: Sequence[_Axis], places: Sequence[_Place], *, rounded: bool) -> str:
    """Return float [N, C, h, w] of pixels [N, H, W, C]: first columns, then rows, as Pillow does."""
    (rows, columns), (row_places, column_places) = axes, places
    channels = do("Shape", pixels, start=3, end=4)
    pixels = do("Reshape", do("Transpose", pixels, perm=[0, 2, 3, 1]), [0, 0, -1])
    pixels = _pass(do, pixels, columns, column_places, rounded)
    pixels = do("Reshape", pixels, do("Concat", [0, columns.out], channels, [-1], axis=0))
    pixels = do("Reshape", do("Transpose", pixels, perm=[0, 3, 2, 1]), [0, 0, -1])
    pixels = _pass(do, pixels, rows, row_places, rounded)
    return do("Transpose", do("Reshape", pixels, [0, rows.out, -1, columns.out]), perm=[0, 2, 1, 3])


def _pass(do: _Builder, pixels: str, axis: _Axis, place: _Place, rounded: bool) -> str:
    """Return [N, out, M] of pixels [N, length, M].

    The results are made in blocks, each from the source pixels around it: most weights of a whole matrix are zero.
    """
    blocks = next(count for count in range(BLOCKS, 0, -1) if axis.out % count == 0)
    centre = do("Reshape", place.centre, [blocks, axis.out // blocks, 1])
    reach = do("Max", place.scale, [1.0])
    source = _sources(do, axis, centre, place.scale, reach, axis.out // blocks)
    middle = do("Add", do("Cast", do("Unsqueeze", source, [1]), to=TensorProto.FLOAT), 0.5)
    weight = do("Relu", do("Sub", 1.0, do("Div", do("Abs", do("Sub", middle, centre)), reach)))
    weight = do("Div", weight, do("ReduceSum", weight, [2], keepdims=1))
    used = do("Cast", do("Gather", pixels, source, axis=1), to=TensorProto.FLOAT)
    made = do("Reshape", do("MatMul", weight, used), [0, axis.out, -1])
    return do("Floor", do("Add", made, 0.5)) if rounded else made  # values >= 0; halves up, as Pillow does


def _sources(do: _Builder, axis: _Axis, centre: str, scale: str, reach: str, block: int) -> str:
    """Return int64 [blocks, n]: the source pixels that the results of each block, at `centre`, are made of."""
    span = do("Add", do("Mul", scale, [block - 1.0]), do("Mul", reach, [2.0]))
    count = do("Min", do("Add", do("Cast", do("Ceil", span), to=TensorProto.INT64), [2]), axis.length)
    first = do("Squeeze", do("Slice", centre, [0], [1], [1]), [2])
    first = do("Cast", do("Floor", do("Sub", first, reach)), to=TensorProto.INT64)
    first = do("Max", do("Min", first, do("Sub", axis.length, count)), [0])
    return do("Add", first, do("Range", 0, do("Squeeze", count), 1))
