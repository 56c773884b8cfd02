"""TensorFlow Lite files: each operator computes what onnxruntime computes, in float and in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from potstill.compress.quantize import fold_batchnorm, observe, quantized
from potstill.errors import ModelError
from potstill.exporters import export_quantized, gate, parity, quantize_int8
from potstill.exporters.tflite import check_operators, to_tflite
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.runtimes import open_exported
from potstill.models.outputs import Classifier

from . import graphs, nets
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


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two kinds of convolution and a dense layer in 8 bits, and its ONNX file beside it; for reading only."""
    folder = tmp_path_factory.mktemp("int8")
    wide = step("Conv", normal(8, 8, 3, 3), normal(8), pads=PADS, strides=[2, 2])
    deep = step("Conv", normal(8, 1, 3, 3), normal(8), pads=PADS, group=8)
    steps = [wide, step("Relu"), deep, POOLED, step("Gemm", normal(5, 8), normal(5), transB=1)]
    exported = graphs.write(folder / "float.onnx", *steps)
    quantize_int8(exported, folder / "int8.onnx", graphs.pixels(16))
    to_tflite(folder / "int8.onnx", folder / "int8.tflite", graphs.pixels(16))
    return folder / "int8.tflite"


def test_another_reader_finds_a_file_as_the_schema_wants_it(int8: Path) -> None:
    """Constants are aligned, versions and the oldest runtime are those of the operators, and names are there."""
    import tflite

    content = int8.read_bytes()
    model = tflite.Model.GetRootAsModel(content, 0)
    assert content[4:8] == b"TFL3" and model.Version() == 3 and model.SubgraphsLength() == 1
    assert codes(int8) == {
        "QUANTIZE": 1, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "MEAN": 2, "PAD": 2, "RESHAPE": 1,
    }  # fmt: skip
    buffers = [model.Buffers(place) for place in range(model.BuffersLength())]
    places = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
    assert buffers[0].DataLength() == 0 and len(places) > 8 and not any(place % 16 for place in places)
    entries = {model.Metadata(place).Name(): model.Metadata(place).Buffer() for place in range(model.MetadataLength())}
    oldest = buffers[entries[b"min_runtime_version"]].DataAsNumpy().tobytes()
    assert oldest == b"1.14.0".ljust(16, b"\0")
    signature = model.SignatureDefs(0)
    assert signature.SignatureKey() == b"serving_default"
    assert (signature.Inputs(0).Name(), signature.Outputs(0).Name()) == (b"image", b"logits")
    assert (int8.parent / "labels.txt").read_text() == "c0\nc1\nc2\nc3\nc4\n"


def test_weights_and_grids_are_those_of_the_onnx_file(int8: Path) -> None:
    import onnx
    from ai_edge_litert.interpreter import Interpreter

    held = [onnx.numpy_helper.to_array(one) for one in onnx.load(int8.with_suffix(".onnx")).graph.initializer]
    expected = {one.transpose(0, 2, 3, 1).tobytes() for one in held if one.shape == (8, 8, 3, 3)}
    reader = Interpreter(str(int8))
    reader.allocate_tensors()
    details = [one for one in reader.get_tensor_details() if tuple(one["shape"]) == (8, 3, 3, 8)]
    assert {reader.get_tensor(one["index"]).tobytes() for one in details} == expected != set()
    scale = details[0]["quantization_parameters"]["scales"]
    assert any(one.shape == (8,) and np.array_equal(one, scale) for one in held)


def test_probabilities_are_those_of_the_calibrated_logits(int8: Path, tmp_path: Path) -> None:
    images = graphs.pixels(16)
    to_tflite(int8.with_suffix(".onnx"), tmp_path / "p.tflite", images, probabilities=True)
    model, plain = open_exported(tmp_path / "p.tflite"), open_exported(int8)
    expected = (plain(torch.from_numpy(images)).logits / 2.0).softmax(1)  # 2.0 is the temperature of the file
    result = (model(torch.from_numpy(images)).logits / 2.0).exp()
    assert (result - expected).abs().max() < 1.1 / 256
    assert model.temperature == plain.temperature == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("activation_bits", [8, None])
def test_weights_below_8_bits_are_those_of_the_network(tmp_path: Path, activation_bits: int | None) -> None:
    plain, calibration = nets.tiny().eval(), nets.images(64, seed=3)
    image = plain.prepare(calibration)
    folded = fold_batchnorm(plain.network, image[:1])
    seen = observe(folded, [image])
    network = quantized(folded, seen, weight_bits=4, activation_bits=activation_bits)
    classifier = plain.replace(network=network).eval()
    export_quantized(classifier, tmp_path / "low.onnx", calibration.numpy())
    to_tflite(tmp_path / "low.onnx", tmp_path / "low.tflite", calibration.numpy())
    result = parity(classifier, open_exported(tmp_path / "low.tflite", threads=1), [nets.images(200)])
    assert result["agreement"] >= (98 if activation_bits else 100)
    assert result["max_logit_difference"] < (0.2 if activation_bits else 1e-4)  # logits of 9 from end to end


def test_the_gate_lets_rounding_pass_and_nothing_else(int8: Path, tmp_path: Path) -> None:
    """The ONNX file in float stands for the network."""
    exact, exported = OnnxModel(int8.with_name("float.onnx")), OnnxModel(int8.with_suffix(".onnx"))
    images, file = torch.from_numpy(graphs.pixels(64)), tmp_path / "model.tflite"
    opened = open_exported(int8)
    for temperature in (None, 2.0):
        file.touch()
        options = {"opened": opened, "temperature": temperature}
        gate.check_rounding(file, exported, cast(Classifier, exact), images, **options)
        assert file.is_file()
        options["opened"] = lambda image: opened(image.flip(3))
        with pytest.raises(ModelError, match="was not delivered.* is what rounding explains"):
            gate.check_rounding(file, exported, cast(Classifier, exact), images, **options)
        assert not file.exists()


def test_all_that_is_not_supported_is_named_at_once(tmp_path: Path) -> None:
    steps = [
        step("Softsign"),
        step("Elu"),
        step("Softsign"),
        step("Resize", normal(0), np.float32([1, 1, 2, 2]), mode="cubic"),
    ]
    exported = graphs.write(tmp_path / "model.onnx", *steps)
    with pytest.raises(ModelError, match=r"Elu \(1 time\); Resize with mode cubic.*\(1 time\); Softsign \(2 times\)"):
        check_operators(exported, "this net")
    with pytest.raises(ModelError, match="Softsign"):
        to_tflite(exported, tmp_path / "model.tflite", graphs.pixels(2))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("content", [b"", b"abcdTFL3 and no more", "cut"])
def test_damaged_files_are_refused(int8: Path, tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(content if isinstance(content, bytes) else int8.read_bytes()[:200])
    with pytest.raises(ModelError, match="is not a TensorFlow Lite file of potstill"):
        open_exported(file)
