"""Grids of the tensors that the 8-bit ONNX file keeps in float, from calibration images.

onnxruntime's quantization leaves some tensors in float, the logits among them; a file in integers needs a grid for
each. Fixed grids: the image has steps of 1/255, and functions with a known range have that which TensorFlow Lite wants.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from potstill.exporters.onnx_file import read_prepared
from potstill.exporters.tflite.graph import Graph, Grid, Value, grid_of_range
from potstill.model_files.onnx_values import with_outputs

IMAGE = Grid.of(1 / 255, -128)
FIXED = {
    "Sigmoid": Grid.of(1 / 256, -128),
    "Softmax": Grid.of(1 / 256, -128),
    "HardSigmoid": Grid.of(1 / 255, -128),
}
"""By operator; TensorFlow Lite defines those of sigmoid and softmax."""

SAME_GRID = ("Reshape", "Transpose", "MaxPool", "AveragePool", "Slice", "Pad", "ReduceMax", "Resize")
"""Operators whose output has the grid of their input."""

MARGIN = 0.05
"""Part of their range by which logits may exceed those of the calibration images, at either end."""


def assign_grids(graph: Graph, file: Path, calibration: Iterable[np.ndarray]) -> None:
    """Give every tensor a grid, in place.

    calibration: batches of images float32 [N, C, H, W] in 0..1, of which those tensors are computed.
    """
    graph.image.grid = IMAGE
    for node in graph.nodes:
        node.output.grid = FIXED.get(node.kind, node.output.grid)
    missing = [node.output for node in graph.nodes if node.output.grid is None and node.kind not in SAME_GRID]
    if missing:
        ends = {graph.logits, *(node.x for node in graph.nodes if node.kind == "Softmax")}
        _measure(missing, file, calibration, ends)


def _measure(values: list[Value], file: Path, calibration: Iterable[np.ndarray], ends: set[Value]) -> None:
    running = with_outputs(read_prepared(file), [value.name for value in values])
    image = running.get_inputs()[0].name
    low, high = np.zeros(len(values)), np.zeros(len(values))
    for batch in calibration:
        for position, content in enumerate(running.run([value.name for value in values], {image: batch})):
            output = np.asarray(content)
            low[position] = min(low[position], float(output.min()))
            high[position] = max(high[position], float(output.max()))
    for value, bottom, top in zip(values, low, high, strict=True):
        margin = MARGIN * (top - bottom) if value in ends else 0.0
        value.grid = grid_of_range(bottom - margin, top + margin)
