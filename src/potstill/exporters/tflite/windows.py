"""Paddings and pools: the windows of ONNX, in terms of TensorFlow Lite's SAME and VALID.

TensorFlow Lite has no explicit paddings. SAME pads so that the output has a size of input / stride, more at the end;
what differs from both is padded by an operator of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Node
from potstill.exporters.tflite.lowering import Lowering, Unsupported, constant, integers
from potstill.exporters.tflite.operators import Tensor

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Windows:
    """kernel, stride, dilation and padding (begin, end) along rows and columns."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    same: bool

    @classmethod
    def of(cls, node: Node, kernel: tuple[int, ...]) -> Windows:
        """Return the windows of a node on maps."""
        if not (node.x.is_map and node.output.is_map):
            raise Unsupported(f"{node.kind} on tensors with {len(node.x.shape)} axes")
        stride = tuple(node.options.get("strides", (1, 1)))
        dilation = tuple(node.options.get("dilations", (1, 1)))
        begin, offered = _paddings(node, kernel, stride, dilation)
        pads, same = [], []
        for axis in range(2):
            size, result = node.x.shape[2 + axis], node.output.shape[2 + axis]
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            # Only as much as the last window reaches; a pool that rounds up reaches further than the padding.
            end = max((result - 1) * stride[axis] + reach - size - begin[axis], 0)
            pads.append((begin[axis], end))
            total = max((-(-size // stride[axis]) - 1) * stride[axis] + reach - size, 0)
            same.append(result == -(-size // stride[axis]) and pads[-1] == (total // 2, total - total // 2))
            if end > offered[axis] and not node.options.get("ceil_mode"):
                raise Unsupported(f"{node.kind} with a padding that does not reach its last window")
        return cls(kernel, stride, dilation, tuple(pads), all(same))

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(side for pair in self.pads for side in pair)

    @property
    def options(self) -> dict[str, int]:
        """Options that convolutions and pools have in common."""
        return {
            "Padding": SAME if self.same and self.padded else VALID,
            "StrideH": self.stride[0],
            "StrideW": self.stride[1],
        }


def _paddings(node: Node, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    """Return the paddings at the begin and the end of rows and columns."""
    how = node.options.get("auto_pad", b"NOTSET")
    if how in (b"NOTSET", b"VALID"):
        pads = node.options.get("pads", (0, 0, 0, 0))
        return tuple(pads[:2]), tuple(pads[2:])
    begin, end = [], []
    for axis in range(2):
        size, reach = node.x.shape[2 + axis], (kernel[axis] - 1) * dilation[axis] + 1
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + reach - size, 0)
        sides = (total // 2, total - total // 2)
        begin.append(sides[how == b"SAME_LOWER"])
        end.append(sides[how != b"SAME_LOWER"])
    return tuple(begin), tuple(end)


def padded(lowering: Lowering, x: Tensor, windows: Windows) -> Tensor:
    """Return maps with a border of zeros, where SAME is another padding."""
    if windows.same or not windows.padded:
        return x
    return bordered(lowering, x, windows.pads, None)


def bordered(lowering: Lowering, x: Tensor, pads: tuple[tuple[int, int], ...], value: float | None) -> Tensor:
    """Return maps with a border along rows and columns. value: None for 0, -inf for the lowest number there is."""
    (top, bottom), (left, right) = pads
    shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
    result = lowering.like(f"{x.name}/padded", shape, x.grid)
    sides = integers("paddings", [(0, 0), (top, bottom), (left, right), (0, 0)])
    if value is None:
        lowering.add("PAD", [x, sides], result)
    else:
        lowest = np.array([-128], np.int8) if lowering.integer else np.array([np.finfo(np.float32).min], np.float32)
        lowering.add("PADV2", [x, sides, constant("lowest", lowest, x.grid)], result)
    return result


def max_pool(lowering: Lowering, node: Node) -> None:
    """Maximum over windows; padding never wins."""
    windows = _pool(node)
    x = lowering.tensor(node.x)
    if windows.padded and not windows.same:
        x = bordered(lowering, x, windows.pads, -np.inf)
    _add_pool(lowering, node, "MAX_POOL_2D", x, windows)


def average_pool(lowering: Lowering, node: Node) -> None:
    """Mean over windows. TensorFlow Lite does not count SAME padding; counted padding is a border of zeros."""
    windows = _pool(node)
    x = lowering.tensor(node.x)
    if windows.padded and node.options.get("count_include_pad"):
        if node.options.get("ceil_mode"):
            raise Unsupported("AveragePool that rounds its size up and counts padding")
        x = bordered(lowering, x, windows.pads, None)
        windows = Windows(windows.kernel, windows.stride, windows.dilation, ((0, 0), (0, 0)), False)
    elif windows.padded and not windows.same:
        raise Unsupported("AveragePool that does not count a padding which is not SAME")
    _add_pool(lowering, node, "AVERAGE_POOL_2D", x, windows)


def _pool(node: Node) -> Windows:
    windows = Windows.of(node, tuple(node.options["kernel_shape"]))
    if max(windows.dilation) > 1:
        raise Unsupported(f"{node.kind} with dilation")
    return windows


def _add_pool(lowering: Lowering, node: Node, code: str, x: Tensor, windows: Windows) -> None:
    result = lowering.like(node.output.name, [1, *node.output.shape[2:], x.shape[3]], x.grid)
    kernel = {"FilterHeight": windows.kernel[0], "FilterWidth": windows.kernel[1]}
    lowering.add(code, [x], result, **windows.options, **kernel)
    lowering.put(node.output, result)
