"""The 8-bit copy: runs, agrees, is small, keeps the card; images that do not fit are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from potstill.errors import DataError, ModelError
from potstill.exporters import export_int8, export_onnx, parity, quantize_int8
from potstill.exporters.onnx_slim import slim, strip
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import prepared
from potstill.models.outputs import Classifier
from tests.compress.nets import lived_in, separable

from . import nets


@pytest.fixture(scope="module")
def int8(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    int8 = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize_int8(file, int8, nets.images(100, seed=3).numpy())
    return int8


def test_it_agrees_with_the_network(int8: Path) -> None:
    classifier, model = nets.tiny(), OnnxModel(int8, threads=1)
    result = parity(classifier, model, nets.images(200).split(50))
    with torch.no_grad():
        span = classifier.eval()(nets.images(200)).logits
    assert result["agreement"] >= 97
    assert result["max_logit_difference"] < 0.05 * float(span.max() - span.min())
    assert result["max_logit_difference"] > 1e-4, "nothing was quantized"


def test_card_and_temperature_come_with_it(file: Path, int8: Path) -> None:
    float_model, model = OnnxModel(file), OnnxModel(int8)
    assert (model.card, model.temperature) == (float_model.card, 1.7)
    assert model.sha256 != float_model.sha256


def test_weights_are_signed_per_channel_and_activations_unsigned(int8: Path) -> None:
    graph = onnx.load(int8).graph
    held = {i.name: i for i in graph.initializer}
    weights = [i for i in held.values() if len(i.dims) in (2, 4)]
    assert {i.data_type for i in weights if len(i.dims) == 4 and i.dims[0] > 1} == {onnx.TensorProto.INT8}
    convolution = next(i for i in weights if list(i.dims) == [8, 8, 3, 3])
    scale = next(n.input[1] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == convolution.name)
    assert list(held[scale].dims) == [8]
    zeros = {held[n.input[2]].data_type for n in graph.node if n.op_type == "QuantizeLinear"}
    assert zeros == {onnx.TensorProto.UINT8}


def test_slimming_changes_no_bit_of_the_answers(int8: Path) -> None:
    """The same graph with long names, zero points and equal constants apart says the same and is larger."""
    fat = prepared(onnx.load(int8))
    zero = onnx.numpy_helper.from_array(np.zeros(8, np.int8), "a_long_name_for_zeros")
    fat.graph.initializer.append(zero)
    copies = {}
    for node in fat.graph.node:
        for position, name in enumerate(node.input):
            original = next((i for i in fat.graph.initializer if i.name == name), None)
            if original is not None:
                copy = fat.graph.initializer.add()
                copy.CopyFrom(original)
                copy.name = node.input[position] = f"copy_number_{len(copies)}_of_{name}"
                copies[copy.name] = name
    slimmed = ir.from_proto(fat)
    slim(slimmed)
    strip(slimmed)
    thin = ir.to_proto(slimmed)
    image = {"image": nets.images(9).numpy()}
    said = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, image)[0] for m in (fat, thin)]
    np.testing.assert_array_equal(said[0], said[1])
    assert thin.ByteSize() <= prepared(onnx.load(int8)).ByteSize() < fat.ByteSize()
    assert max(len(i.name) for i in thin.graph.initializer) <= 2


def test_additions_are_quantized_too(int8: Path) -> None:
    graph = prepared(onnx.load(int8)).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    addition = next(node for node in graph.node if node.op_type == "Add")
    assert [made[name] for name in addition.input] == ["DequantizeLinear", "DequantizeLinear"]
    assert Counter(node.op_type for node in graph.node)["QuantizeLinear"] >= 5


def test_it_is_stripped_and_alone(int8: Path) -> None:
    assert list(int8.parent.iterdir()) == [int8]
    model = onnx.load(int8)
    assert not model.graph.value_info
    assert {prop.key for prop in model.metadata_props} == {"potstill.card", "potstill.temperature"}


def test_batches_and_one_array_calibrate_alike(file: Path, int8: Path, tmp_path: Path) -> None:
    image = nets.images(100, seed=3).numpy()

    def batches() -> Iterator[np.ndarray]:
        yield image[:7]
        yield image[7:]

    quantize_int8(file, tmp_path / "int8.onnx", batches())
    assert (tmp_path / "int8.onnx").read_bytes() == (int8).read_bytes()


def test_ranges_come_from_the_calibration_images(file: Path, int8: Path, tmp_path: Path) -> None:
    quantize_int8(file, tmp_path / "dark.onnx", 0.1 * nets.images(40).numpy())
    classifier, bright = nets.tiny(), nets.images(40)
    dark = parity(classifier, OnnxModel(tmp_path / "dark.onnx"), [bright])
    right = parity(classifier, OnnxModel(int8), [bright])
    assert dark["max_logit_difference"] > 3 * right["max_logit_difference"]


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((4, 3, 16, 16), np.float32), "takes images of 3x12x10 .* are 3x16x16.*Resize them"),
        (np.zeros((4, 3, 12, 10), np.uint8), "must be float32 in 0..1; these are uint8 from 0 to 0.*by 255"),
        (np.full((4, 3, 12, 10), 200, np.float32), "these are float32 from 200 to 200"),
        (np.zeros((0, 3, 12, 10), np.float32), "no images for calibration"),
        ([], "no images for calibration"),
        ([np.zeros((4, 3, 12, 10), np.float32), np.zeros((4, 1, 12, 10), np.float32)], "are 1x12x10"),
    ],
)
def test_images_that_do_not_fit_are_refused(file: Path, tmp_path: Path, images: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        quantize_int8(file, tmp_path / "int8.onnx", images)
    assert not list(tmp_path.iterdir())


def one_operator(file: Path, kind: str) -> Path:
    info = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node(kind, ["image"], ["logits"])], kind, [info], [out])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), file)
    return file


@pytest.mark.parametrize(("kind", "reason"), [("Log", "not finite"), ("Sin", "no operator with an 8-bit version")])
def test_a_graph_that_does_not_run_in_8_bits_is_refused(tmp_path: Path, kind: str, reason: str) -> None:
    file = one_operator(tmp_path / "odd.onnx", kind)
    with pytest.raises(ModelError, match=rf"odd\.onnx cannot be quantized to int8: .*{reason}"):
        quantize_int8(file, tmp_path / "int8.onnx", np.zeros((2, 3, 4, 4), np.float32))
    assert not (tmp_path / "int8.onnx").exists()


def test_nothing_is_printed(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quantize_int8(file, tmp_path / "int8.onnx", nets.images(8).numpy())
    assert capfd.readouterr() == ("", "")


def test_biases_are_corrected_in_depthwise_networks(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = lived_in(separable())
    classes = tuple("abcdefghij")
    classifier = Classifier(network, nets.tiny().card.replace(classes=classes)).eval()
    exported, plain, corrected = (tmp_path / f"{name}.onnx" for name in ("float", "plain", "corrected"))
    export_onnx(classifier, exported, temperature=1.7)
    quantize_int8(exported, plain, nets.images(200, seed=3).numpy())
    export_int8(classifier, exported, corrected, nets.images(200, seed=3).numpy())
    others = nets.images(300, seed=9)
    with torch.no_grad():
        reference = classifier(others).logits
    shift, model = {}, OnnxModel(corrected)
    for file in (plain, corrected):
        shift[file] = (OnnxModel(file)(others).logits - reference).mean(0).abs().max()
    assert shift[corrected] < 0.2 * shift[plain]  # of the mean of a logit
    assert model.temperature == 1.7 and model.raw and model.card.classes == classes
    assert corrected.stat().st_size <= plain.stat().st_size + 100
