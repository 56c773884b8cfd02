"""Small networks of known cost, whose latency other networks are compared with.

They are written as ONNX graphs, so that a device needs no training library to be measured; weights are random.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from potstill.exporters.onnx_file import metadata_of, write
from potstill.exporters.onnx_float import OPSET
from potstill.exporters.onnx_int8 import quantize_int8
from potstill.models.card import Card

CLASSES = 10
STAGES = 3
"""Resolutions of a network; each has half the side and twice the channels of the one before."""
IR_VERSION = 10


def reference_net(file: Path, *, kind: str, width: int, size: int, int8: bool = False) -> Path:
    """Write a reference network and return its file.

    kind: "residual" (3x3 convolutions in residual blocks) or "separable" (depthwise and pointwise convolutions).
    width: channels at the first resolution. size: side of its colour images in pixels.
    """
    net = _Net(width, size)
    for stage in range(STAGES):
        for block in range(2):
            {"residual": net.residual, "separable": net.separable}[kind](
                width << stage, 2 if stage and not block else 1
            )
    card = Card(f"reference:{kind}-{width}-{size}", tuple(map(str, range(CLASSES))), 3, (size, size),
                (0.5,) * 3, (0.5,) * 3, size, (size, size))  # fmt: skip
    write(ir.from_proto(net.finished()), file, metadata_of(card, None), input="prepared")
    if int8:
        noise = np.random.default_rng(0).random((8, 3, size, size), dtype=np.float32)
        quantize_int8(file, file, noise)
    return file


class _Net:
    """A graph that grows at its end."""

    def __init__(self, width: int, size: int) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._size, self._channels, self._end = size, 3, "image"
        self.conv(width, relu=True)

    def residual(self, channels: int, stride: int) -> None:
        """Add two convolutions, and their input to the result."""
        before, had = self._end, self._channels
        self.conv(channels, stride=stride, relu=True)
        self.conv(channels)
        after = self._end
        if had != channels:
            self._end, self._channels = before, had
            self.conv(channels, stride=stride, side=1)
            before = self._end
        self._add("Add", before, after)
        self._add("Relu", self._end)

    def separable(self, channels: int, stride: int) -> None:
        """Add a depthwise and a pointwise convolution."""
        self.conv(self._channels, stride=stride, group=self._channels, relu=True)
        self.conv(channels, side=1, relu=True)

    def conv(self, channels: int, *, stride: int = 1, side: int = 3, group: int = 1, relu: bool = False) -> None:
        """Add a convolution with bias."""
        weight = self._weight(channels, self._channels // group, side, side)
        pads = [side // 2] * 4
        self._add("Conv", self._end, weight, self._weight(channels), strides=[stride] * 2, pads=pads, group=group)
        self._channels = channels
        if relu:
            self._add("Relu", self._end)

    def finished(self) -> onnx.ModelProto:
        """Add the pool and the classifier; return the model."""
        self._add("GlobalAveragePool", self._end)
        self._add("Flatten", self._end)
        self._add("Gemm", self._end, self._weight(CLASSES, self._channels), transB=1, output="logits")
        value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
        image, logits = ["batch", 3, self._size, self._size], ["batch", CLASSES]
        graph = helper.make_graph(
            self._nodes, "reference", [value("image", shape=image)], [value("logits", shape=logits)], self._weights
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)

    def _add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> None:
        self._end = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [self._end], **attributes))

    def _weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name
