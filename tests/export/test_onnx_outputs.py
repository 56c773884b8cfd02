"""What a graph from elsewhere computes is found from its values: no softmax is applied twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel, describe
from potstill.model_files.onnx_input import TEMPERATURE

WEIGHT = (np.random.default_rng(0).normal(size=(3, 3, 1, 1)) * 6).astype(np.float32)
IMAGE = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = ["a", "b", "c"]


def node(kind: str, inputs: Sequence[str], output: str, **options: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **options)


def made(
    file: Path,
    tail: Sequence[onnx.NodeProto],
    *,
    batch: int | str = "b",
    shape: Sequence[int | str] = (3,),
    weight: np.ndarray = WEIGHT,
    kind: int = TensorProto.FLOAT,
    **constants: np.ndarray,
) -> Path:
    """Write image -> 1x1 convolution -> mean over the image (`g`) -> tail, which computes `y`."""
    first = [node("Cast", ["x"], "i", to=TensorProto.FLOAT), node("Conv", ["i", "w"], "c")]
    graph = helper.make_graph(
        [*first, node("GlobalAveragePool", ["c"], "g"), *tail],
        "foreign",
        [helper.make_tensor_value_info("x", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *shape])],
        [numpy_helper.from_array(value, name) for name, value in {"w": weight, **constants}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def probabilities(file: Path, *, classes: Sequence[str] = CLASSES, image: torch.Tensor = IMAGE, **card: object):
    full = describe(file, **{"classes": classes, "mean": [0.0] * 3, "std": [1.0] * 3, **card})
    return OnnxModel(file, card=full)(image).logits.softmax(1)


RIGHT = torch.einsum("bchw,kc->bk", IMAGE, torch.from_numpy(WEIGHT[:, :, 0, 0])) / 64
SOFTMAX = node("Softmax", ["g"], "s", axis=1)
FLAT = node("Flatten", ["g"], "f")
TAILS = {
    "logits": ([node("Flatten", ["g"], "y")], {}),
    "reshape": ([SOFTMAX, node("Reshape", ["s", "n"], "y")], {"n": np.array([-1, 3])}),
    "flatten": ([SOFTMAX, node("Flatten", ["s"], "y")], {}),
    "squeeze": ([SOFTMAX, node("Squeeze", ["s", "n"], "y")], {"n": np.array([2, 3])}),
    "clip": (
        [FLAT, node("Softmax", ["f"], "s"), node("Clip", ["s", "low", "high"], "y")],
        {"low": np.float32(1e-7), "high": np.float32(1)},
    ),
    "taken apart": (
        [FLAT, node("Exp", ["f"], "e"), node("ReduceSum", ["e", "n"], "z", keepdims=1), node("Div", ["e", "z"], "y")],
        {"n": np.array([1])},
    ),
    "log": ([FLAT, node("LogSoftmax", ["f"], "y", axis=1)], {}),
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_softmax_is_applied_once(tmp_path: Path, tail: str) -> None:
    nodes, constants = TAILS[tail]
    file = made(tmp_path / "x.onnx", nodes, **{name: np.asarray(value) for name, value in constants.items()})
    torch.testing.assert_close(probabilities(file), RIGHT.softmax(1), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_a_fixed_batch_is_fed_in_parts(tmp_path: Path, batch: int) -> None:
    file = made(tmp_path / "x.onnx", [node("Flatten", ["g"], "y")], batch=batch)
    torch.testing.assert_close(probabilities(file), RIGHT.softmax(1))


def test_an_output_with_empty_sides_is_one_value_per_class(tmp_path: Path) -> None:
    file = made(tmp_path / "x.onnx", [node("Identity", ["g"], "y")], shape=(3, 1, 1))
    torch.testing.assert_close(probabilities(file), RIGHT.softmax(1))


@pytest.mark.parametrize("last", ["Sigmoid", "Identity"])
def test_one_output_is_the_second_of_two_classes(tmp_path: Path, last: str) -> None:
    file = made(tmp_path / "x.onnx", [FLAT, node(last, ["f"], "y")], shape=(1,), weight=WEIGHT[:1])
    second = probabilities(file, classes=["no", "yes"])[:, 1]
    torch.testing.assert_close(second, RIGHT[:, 0].sigmoid())


def test_whole_numbers_are_fed_as_such(tmp_path: Path) -> None:
    file = made(tmp_path / "x.onnx", [node("Flatten", ["g"], "y")], kind=TensorProto.UINT8, weight=WEIGHT / 255)
    pixels = (IMAGE * 255).round() / 255
    right = torch.einsum("bchw,kc->bk", pixels, torch.from_numpy(WEIGHT[:, :, 0, 0])) / 64
    torch.testing.assert_close(probabilities(file), right.softmax(1))
    with pytest.raises(ModelError, match="so it normalises by itself"):
        probabilities(file, mean=[0.5] * 3)


def test_a_graph_of_nan_is_named(tmp_path: Path) -> None:
    file = made(tmp_path / "x.onnx", [node("Flatten", ["g"], "y")], weight=WEIGHT * np.float32("nan"))
    with pytest.raises(ModelError, match="computes NaN or infinity for ordinary images"):
        probabilities(file)


@pytest.mark.parametrize("text", ["", "x", "nan", "-1", "0", "inf"])
def test_a_temperature_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    model = onnx.load(made(tmp_path / "x.onnx", [node("Flatten", ["g"], "y")]))
    model.metadata_props.add(key=TEMPERATURE, value=text)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="calibration temperature"):
        probabilities(tmp_path / "x.onnx")


def test_weights_in_another_file_that_is_missing_are_named(tmp_path: Path) -> None:
    file = made(tmp_path / "x.onnx", [node("Flatten", ["g"], "y")])
    onnx.save(onnx.load(file), tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    (tmp_path / "e.data").unlink()
    with pytest.raises(ModelError, match="keeps its weights in e.data, which cannot be read beside it"):
        probabilities(tmp_path / "e.onnx")
