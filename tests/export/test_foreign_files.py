"""ONNX files that potstill did not write: refused in a sentence, or run once they are described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel, describe
from potstill.model_files.onnx_input import CARD
from potstill.models.card import Card

from . import nets

WEIGHT = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def write(
    file: Path, shape: list[int | str], *, last: str = "", kind: int = TensorProto.FLOAT, given: str = "input_1"
) -> Path:
    """Write pixels -> flatten -> matmul (-> `last`), as another framework might: input [batch, ...]."""
    nodes = [helper.make_node("Flatten", [given], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["z"])]
    if last:
        nodes.append(helper.make_node(last, ["z"], ["p"]))
    weight = numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info(given, kind, shape)],
        [helper.make_tensor_value_info("p" if last else "z", kind, [shape[0], 3])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def grey(**more: object) -> dict[str, object]:
    return {"classes": nets.CLASSES, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], **more}


def expected(image: torch.Tensor) -> torch.Tensor:
    """What the graph says of images in the pixel order height, width, channel."""
    return image.permute(0, 2, 3, 1).flatten(1) @ torch.from_numpy(WEIGHT)


IMAGE = nets.images(5, size=(2, 2))


@pytest.mark.parametrize("shape", [["n", 2, 2, 3], ["n", 12], [1, 2, 2, 3], ["n", "h", "w", 3]])
def test_channels_last_flat_and_single_images(tmp_path: Path, shape: list[int | str]) -> None:
    file = write(tmp_path / "keras.onnx", shape)
    model = OnnxModel(file, card=describe(file, **grey(size=(2, 2))))
    torch.testing.assert_close(model(IMAGE).logits, expected(IMAGE))


def test_channels_first(tmp_path: Path) -> None:
    file = write(tmp_path / "torch.onnx", ["n", 3, 2, 2])
    torch.testing.assert_close(
        OnnxModel(file, card=describe(file, **grey()))(IMAGE).logits, IMAGE.flatten(1) @ torch.from_numpy(WEIGHT)
    )


def test_the_card_normalises_before_the_graph(tmp_path: Path) -> None:
    file = write(tmp_path / "keras.onnx", ["n", 2, 2, 3])
    card = describe(file, classes=nets.CLASSES, mean=[0.5, 0.5, 0.5], std=[1 / 255] * 3)
    torch.testing.assert_close(OnnxModel(file, card=card)(IMAGE).logits, expected((IMAGE - 0.5) * 255))


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid"])
def test_probabilities_become_logits(tmp_path: Path, last: str) -> None:
    file = write(tmp_path / "keras.onnx", ["n", 2, 2, 3], last=last)
    card = describe(file, **grey())
    model = OnnxModel(file, card=card)
    assert model.probabilities
    squashed = expected(IMAGE).softmax(1) if last == "Softmax" else expected(IMAGE).sigmoid()
    torch.testing.assert_close(model(IMAGE).logits.exp(), squashed)
    torch.testing.assert_close(OnnxModel(file, card=card, probabilities=False)(IMAGE).logits, squashed)


@pytest.mark.parametrize(("kind", "close"), [(TensorProto.DOUBLE, 1e-5), (TensorProto.FLOAT16, 2e-2)])
def test_other_floating_types(tmp_path: Path, kind: int, close: float) -> None:
    file = write(tmp_path / "double.onnx", ["n", 12], kind=kind)
    logits = OnnxModel(file, card=describe(file, **grey()))(IMAGE).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected(IMAGE), rtol=0, atol=close)


def test_scikit_learn_as_its_converter_writes_it(tmp_path: Path) -> None:
    info = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 12])]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3]),
    ]
    node = helper.make_node(
        "LinearClassifier", ["X"], ["label", "probabilities"], domain="ai.onnx.ml", post_transform="SOFTMAX",
        classlabels_ints=[0, 1, 2], coefficients=WEIGHT.T.ravel().tolist(), intercepts=[0.0] * 3,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    graph = helper.make_graph([node], "sklearn", info, outputs)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "sk.onnx")
    model = OnnxModel(tmp_path / "sk.onnx", card=describe(tmp_path / "sk.onnx", **grey()))
    torch.testing.assert_close(model(IMAGE).logits.exp(), expected(IMAGE).softmax(1))


def test_a_card_beside_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "keras.onnx", ["n", 2, 2, 3])
    text = {"classes": list(nets.CLASSES), "mean": [0, 0, 0], "std": [1, 1, 1], "licence": "MIT"}
    (tmp_path / "keras.card.json").write_text(json.dumps(text))
    model = OnnxModel(file)
    assert (model.card.classes, model.card.size, model.card.licence) == (nets.CLASSES, (2, 2), "MIT")
    assert model.card.weights_sha256 == model.sha256
    torch.testing.assert_close(model(IMAGE).logits, expected(IMAGE))
    (tmp_path / "keras.card.json").write_text('{"klasses": []}')
    with pytest.raises(ModelError, match="must be a JSON object with classes, mean and std"):
        OnnxModel(file)


def test_without_a_card_it_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "keras.onnx", ["n", 2, 2, 3])
    with pytest.raises(ModelError, match=r"was not exported by potstill.*Write keras\.card\.json next to it"):
        OnnxModel(file)


def test_a_card_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "keras.onnx", ["n", 2, 2, 3])
    other = Card("x", nets.CLASSES, 3, (4, 4), (0, 0, 0), (1, 1, 1), 4, (4, 4))
    with pytest.raises(ModelError, match=r"takes tensor\(float\) \[any, 2, 2, 3\].*3 channels of 4x4 pixels"):
        OnnxModel(file, card=other)
    with pytest.raises(ModelError, match=r"no output with one value for each of 2 classes; it has z \[any, 3\]"):
        OnnxModel(file, card=describe(file, classes=("a", "b"), mean=[0.0] * 3, std=[1.0] * 3))
    open_size = write(tmp_path / "open.onnx", ["n", "h", "w", 3])
    with pytest.raises(ModelError, match=r"without a fixed size\. Give size"):
        describe(open_size, **grey())


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89PNG\r\n" + bytes(100)])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.onnx cannot be read as an ONNX model"):
        OnnxModel(tmp_path / "x.onnx")


def test_damaged_files_are_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    file = tmp_path / "tiny.onnx"
    for part in (0.2, 0.5, 0.9, 0.99):
        file.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ModelError, match=r"tiny\.onnx"):
            OnnxModel(file)
    model = onnx.load_from_string(whole)
    onnx.helper.set_model_props(model, {CARD: '{"model": "x"}'})
    onnx.save(model, file)
    with pytest.raises(ModelError, match=r"card inside .*tiny\.onnx cannot be used: .*Field required.*wrote it again"):
        OnnxModel(file)


def test_absent_files_and_newer_operator_sets(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        OnnxModel(tmp_path / "none.onnx")
    file = write(tmp_path / "new.onnx", ["n", 12])
    model = onnx.load(file)
    model.opset_import[0].version = 9999
    onnx.save(model, file)
    with pytest.raises(ModelError, match="onnxruntime .* cannot run .*lower opset"):
        OnnxModel(file)
