"""TensorFlow Lite files: each operator computes what onnxruntime computes, in float and in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.errors import ModelError
from potstill.exporters import quantize_int8
from potstill.exporters.tflite import check_operators, to_tflite
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.runtimes import open_exported

from . import graphs
from .graphs import normal, step

pytest.importorskip("ai_edge_litert", reason="needs the extra tflite")
pytest.importorskip("tflite", reason="needs the extra tflite")

BIG = np.iinfo(np.int64).max
PADS = [1, 1, 1, 1]
HALF = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": PADS}
DENSE = step("Gemm", normal(5, 8 * 64), normal(5), transB=1)
FLAT = step("Reshape", [-1, 8 * 64])
POOLED = step("ReduceMean", [2, 3], keepdims=0)

OPERATORS: dict[str, tuple[list[graphs.Step], list[str]]] = {
    "conv, SAME": ([step("Conv", normal(4, 8, 3, 3), normal(4), pads=PADS)], ["CONV_2D"]),
    "conv, both sides": ([step("Conv", normal(4, 8, 3, 3), pads=PADS, strides=[2, 2])], ["PAD", "CONV_2D"]),
    "conv, as TensorFlow pads": ([step("Conv", normal(4, 8, 3, 3), pads=[0, 0, 1, 1], strides=[2, 2])], ["CONV_2D"]),
    "conv, SAME_LOWER": ([step("Conv", normal(4, 8, 2, 2), auto_pad="SAME_LOWER")], ["PAD", "CONV_2D"]),
    "conv, unpadded": ([step("Conv", normal(4, 8, 3, 3), strides=[2, 2])], ["CONV_2D"]),
    "conv, dilated": ([step("Conv", normal(4, 8, 3, 3), dilations=[2, 2], pads=[2] * 4)], ["CONV_2D"]),
    "depthwise": ([step("Conv", normal(8, 1, 3, 3), normal(8), pads=PADS, group=8)], ["DEPTHWISE_CONV_2D"]),
    "depthwise, twice as wide": ([step("Conv", normal(16, 1, 3, 3), pads=PADS, group=8)], ["DEPTHWISE_CONV_2D"]),
    "groups": ([step("Conv", normal(6, 4, 3, 3), normal(6), pads=PADS, group=2)], ["SPLIT", "CONCATENATION"]),
    "dense": ([POOLED, step("Gemm", normal(5, 8), normal(5), transB=1)], ["MEAN"]),
    "dense, behind maps": ([FLAT, DENSE], ["RESHAPE"]),
    "matrix product": ([POOLED, step("MatMul", normal(8, 5))], ["MEAN"]),
    "relu": ([step("Conv", normal(4, 8, 1, 1)), step("Relu")], ["CONV_2D"]),
    "relu6": ([step("Conv", normal(4, 8, 1, 1)), step("Clip", np.float32(0), np.float32(6))], ["CONV_2D"]),
    "relu of a sum": ([step("Add", twice=True), step("Relu")], ["ADD"]),
    "hard swish": ([step("HardSwish")], ["HARD_SWISH"]),
    "hard sigmoid": ([step("HardSigmoid", alpha=1 / 6, beta=0.5)], []),
    "sigmoid": ([step("Sigmoid")], ["LOGISTIC"]),
    "softmax": ([POOLED, step("Softmax", axis=-1)], ["SOFTMAX"]),
    "square": ([step("Mul", twice=True)], ["MUL"]),
    "factor and offset": ([step("Mul", normal(8, 1, 1)), step("Add", normal(8, 1, 1))], []),
    "constant first": ([step("Sub", np.float32(1), last=True)], []),
    "batch norm": ([step("BatchNormalization", *(normal(8, seed=s) ** 2 + 0.1 for s in range(4)))], []),
    "max pool": ([step("MaxPool", kernel_shape=[2, 2], strides=[2, 2])], ["MAX_POOL_2D"]),
    "max pool, both sides": ([step("MaxPool", **HALF)], ["PADV2", "MAX_POOL_2D"]),
    "max pool, rounded up": ([step("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)], ["MAX_POOL_2D"]),
    "average pool": ([step("AveragePool", kernel_shape=[2, 2], strides=[2, 2])], ["AVERAGE_POOL_2D"]),
    "average pool, SAME": ([step("AveragePool", kernel_shape=[3, 3], pads=PADS)], ["AVERAGE_POOL_2D"]),
    "average pool, zeros": ([step("AveragePool", **HALF, count_include_pad=1)], ["PAD", "AVERAGE_POOL_2D"]),
    "global average": ([step("GlobalAveragePool")], ["MEAN"]),
    "global maximum": ([step("GlobalMaxPool")], ["REDUCE_MAX"]),
    "option A": (
        [step("Slice", [0, 0], [BIG, BIG], [2, 3], [2, 2]), step("Pad", [0, 4, 0, 0, 0, 4, 0, 0])],
        ["STRIDED_SLICE", "PAD"],
    ),
    "border of ones": ([step("Pad", [0, 0, 1, 0, 0, 0, 1, 2], np.float32(1))], ["PADV2"]),
    "joined": ([step("Concat", twice=True, axis=1)], ["CONCATENATION"]),
    "other shape": ([step("Reshape", [-1, 4, 2, 8, 8]), step("Transpose", perm=[0, 2, 1, 3, 4])], ["TRANSPOSE"]),
    "larger": ([step("Resize", normal(0), np.float32([1, 1, 2, 1.5]), mode="linear")], ["RESIZE_BILINEAR"]),
    "nearest": (
        [
            step(
                "Resize", normal(0), np.float32([1, 1, 2, 2]), mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ],
        ["RESIZE_NEAREST_NEIGHBOR"],
    ),
}  # fmt: skip


def codes(file: Path) -> dict[str, int]:
    """Return the version of each operator of a file."""
    import tflite

    model = tflite.Model.GetRootAsModel(file.read_bytes(), 0)
    graph = model.Subgraphs(0)
    used = [model.OperatorCodes(graph.Operators(place).OpcodeIndex()) for place in range(graph.OperatorsLength())]
    return {tflite.opcode2name(one.BuiltinCode()): one.Version() for one in used}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_compute_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    """In 8 bits within one step of the output: of half a step it is rounded, the rest is fixed-point arithmetic."""
    steps, expected = OPERATORS[name]
    exported = graphs.write(tmp_path / "model.onnx", *steps)
    images = graphs.pixels(16)
    to_tflite(exported, tmp_path / "float.tflite", images)
    reference = OnnxModel(exported, threads=1).run(images)
    model = open_exported(tmp_path / "float.tflite", threads=1)
    np.testing.assert_allclose(model(torch.from_numpy(images)).logits, reference, rtol=1e-5, atol=1e-4)
    assert {*expected} <= codes(tmp_path / "float.tflite").keys()

    quantize_int8(exported, tmp_path / "int8.onnx", images)
    reference = OnnxModel(tmp_path / "int8.onnx", threads=1).run(images)
    for outside in ("uint8", "int8"):
        to_tflite(tmp_path / "int8.onnx", tmp_path / "int8.tflite", images, outside=outside)
        model = open_exported(tmp_path / "int8.tflite", threads=1)
        step, _ = model._result["quantization"]
        assert model._result["dtype"] == model._image["dtype"] == np.dtype(outside)
        difference = np.abs(model(torch.from_numpy(images)).logits.numpy() - reference)
        assert difference.max() <= 1.01 * step
    assert codes(tmp_path / "int8.tflite").keys() >= {*expected}
