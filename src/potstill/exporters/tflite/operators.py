"""Operators of TensorFlow Lite: their versions, the first runtime with each, and their options in a flatbuffer.

The version of an operator says which types it takes: one that is too low is refused or computed wrongly, and one that
is too high is refused by older runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Grid

RELEASES: dict[str, tuple[str, str | None]] = {
    "ADD": ("1.5.0", "1.14.0"),
    "AVERAGE_POOL_2D": ("1.5.0", "1.14.0"),
    "CONCATENATION": ("1.5.0", "1.14.0"),
    "CONV_2D": ("1.5.0", "1.14.0"),
    "DEPTHWISE_CONV_2D": ("1.5.0", "1.14.0"),
    "DEQUANTIZE": ("1.13.1", "1.14.0"),
    "FULLY_CONNECTED": ("1.5.0", "1.14.0"),
    "HARD_SWISH": ("1.15.0", "1.15.0"),
    "LOGISTIC": ("1.14.0", "1.14.0"),
    "MAX_POOL_2D": ("1.5.0", "1.14.0"),
    "MEAN": ("1.6.0", "1.14.0"),
    "MUL": ("1.5.0", "1.14.0"),
    "PAD": ("1.5.0", "1.14.0"),
    "PADV2": ("1.9.0", "1.14.0"),
    "QUANTIZE": ("1.14.0", "1.14.0"),
    "REDUCE_MAX": ("1.11.0", "1.14.0"),
    "RELU": ("1.5.0", "2.1.0"),
    "RELU6": ("1.5.0", "1.14.0"),
    "RESHAPE": ("1.5.0", "1.5.0"),
    "RESIZE_BILINEAR": ("1.7.0", "1.14.0"),
    "RESIZE_NEAREST_NEIGHBOR": ("1.13.1", "1.14.0"),
    "SOFTMAX": ("1.5.0", "1.14.0"),
    "SPLIT": ("1.5.0", "1.14.0"),
    "STRIDED_SLICE": ("1.6.0", "1.14.0"),
    "SUB": ("1.6.0", "1.14.0"),
    "TRANSPOSE": ("1.6.0", "1.14.0"),
}
"""The first release of TensorFlow that runs an operator in float and in int8."""

INT8_VERSION = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}
"""Version of an operator with int8 tensors; 2 for the others."""
ONE_VERSION = ("HARD_SWISH", "QUANTIZE", "RESHAPE")
"""Operators that have one version for all types used here."""


@dataclass(eq=False)
class Tensor:
    """A tensor of the file: axes as TensorFlow Lite has them, batch size 1. data: None where it is computed."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    data: np.ndarray | None = None
    grid: Grid | None = None


@dataclass(eq=False)
class Operator:
    """One operator. options: by the name that the functions of the schema have, such as `StrideW`."""

    code: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_int8(self) -> bool:
        """Whether it reads or writes int8."""
        kinds = (tensor.dtype for tensor in (*self.inputs, *self.outputs) if tensor is not None)
        return any(kind == np.int8 for kind in kinds)

    @property
    def version(self) -> int:
        """The version of the operator that these types and options need."""
        return self._needs()[0]

    @property
    def release(self) -> str:
        """The first release of TensorFlow that runs it."""
        return self._needs()[1]

    def _needs(self) -> tuple[int, str]:
        plain, integer = RELEASES[self.code]
        if self.code == "RESIZE_BILINEAR" and self.options.get("HalfPixelCenters"):
            return 3, "2.2.0"
        if self.code == "RESIZE_NEAREST_NEIGHBOR" and any(self.options.values()):
            return 3, "2.3.0"
        dilated = max(self.options.get("DilationWFactor", 1), self.options.get("DilationHFactor", 1)) > 1
        if self.code == "DEPTHWISE_CONV_2D" and not self.is_int8 and dilated:
            return 2, "1.12.0"
        if self.code == "TRANSPOSE" and len(self.outputs[0].shape) > 4:
            return 4, "2.3.0"
        if self.code == "MUL" and self.is_int8 and self._rescales():
            return 3, "1.15.0"
        if not self.is_int8 or self.code in ONE_VERSION:
            return 1, integer if self.is_int8 and integer else plain
        assert integer is not None, "every operator here has an int8 version"
        return INT8_VERSION.get(self.code, 2), integer

    def _rescales(self) -> bool:
        """Whether the product of the input scales is at least the output's."""
        grids = [tensor.grid for tensor in (*self.inputs, *self.outputs) if tensor is not None and tensor.grid]
        first, second, result = (float(grid.scale[0]) for grid in grids)
        return first * second / result >= 1


def minimum_release(operators: list[Operator]) -> str:
    """Return the first release of TensorFlow that runs all of them."""
    return max((operator.release for operator in operators), key=lambda text: [int(part) for part in text.split(".")])


OPTIONS: Mapping[str, str] = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
"""Table of the options of each operator; the others have none."""
