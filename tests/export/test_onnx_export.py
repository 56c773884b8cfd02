"""An exported file says what the network says, carries its card, and holds nothing else."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from potstill.errors import ModelError, RunError
from potstill.exporters import export_onnx, parity
from potstill.exporters import onnx_file as onnx_file
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import prepared
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier

from . import nets


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return nets.tiny()


def test_the_file_says_what_the_network_says(classifier: Classifier, file: Path) -> None:
    result = parity(classifier, OnnxModel(file, threads=1), nets.images(48).split(16))
    assert result["images"] == 48
    assert result["max_logit_difference"] < 1e-4
    assert result["agreement"] == 100


def test_parity_tells_a_different_network(file: Path) -> None:
    result = parity(nets.tiny(seed=5), OnnxModel(file, threads=1), [nets.images(48)])
    assert result["max_logit_difference"] > 0.1
    assert result["agreement"] < 100


def test_export_leaves_the_classifier_as_it_was_and_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    classifier = nets.tiny()
    before, handlers = bits(classifier), list(logging.getLogger().handlers)
    export_onnx(classifier, tmp_path / "a.onnx")
    assert classifier.training and classifier.network.drop.training
    assert bits(classifier) == before
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert logging.getLogger().handlers == handlers and logging.root.manager.disable == 0


def test_the_card_comes_back_whole(classifier: Classifier, file: Path) -> None:
    model = OnnxModel(file)
    assert model.card == classifier.card
    assert model.temperature == 1.7
    assert not model.foreign and not model.probabilities


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch(classifier: Classifier, file: Path, count: int) -> None:
    image = nets.images(count, seed=count)
    with torch.no_grad():
        expected = classifier.eval()(image).logits
    torch.testing.assert_close(OnnxModel(file, threads=1)(image).logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [((31, 17), 3), ((12, 10), 1), ((9, 40), 1)])
def test_other_sizes_and_grey_are_treated_as_the_classifier_does(
    classifier: Classifier, file: Path, size: tuple[int, int], channels: int
) -> None:
    image = nets.images(3, size=size, channels=channels)
    with torch.no_grad():
        expected = classifier.eval()(image).logits
    torch.testing.assert_close(OnnxModel(file, threads=1)(image).logits, expected, rtol=0, atol=1e-4)


RAW, PREPARED = ["batch", "height", "width", "channels"], ["batch", 3, 12, 10]


def test_the_graph_is_as_promised(file: Path) -> None:
    exported = onnx.load(file)
    for model, kind, shape in ((exported, "UINT8", RAW), (prepared(exported), "FLOAT", PREPARED)):
        onnx.checker.check_model(model, full_check=True)
        (image,), (logits,) = model.graph.input, model.graph.output
        assert (image.name, logits.name) == ("image", "logits")
        assert [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim] == shape
        assert onnx.TensorProto.DataType.Name(image.type.tensor_type.elem_type) == kind
        assert not {"Resize", "Dropout"} & {node.op_type for node in model.graph.node}
        assert model.opset_import[0].version == 20


def test_without_its_preprocessing_a_raw_file_is_the_prepared_one(file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "prepared.onnx"
    export_onnx(nets.tiny(), plain, input="prepared", temperature=1.7)
    assert prepared(onnx.load(file)) == onnx.load(plain) == prepared(onnx.load(plain))
    assert 0 < file.stat().st_size - plain.stat().st_size < 5000
    assert OnnxModel(file).raw and not OnnxModel(plain).raw


def test_nothing_is_left_of_the_exporter(file: Path) -> None:
    model = onnx.load(file)
    assert not model.graph.value_info and not model.graph.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert {prop.key for prop in model.metadata_props} == {"potstill.card", "potstill.temperature"}
    assert b"site-packages" not in file.read_bytes() and b".py" not in file.read_bytes()


def test_side_heads_stay_behind(file: Path, tmp_path: Path) -> None:
    classifier = nets.with_side_heads()
    export_onnx(classifier, tmp_path / "side.onnx")
    assert classifier.training
    assert weights(tmp_path / "side.onnx") == weights(file)
    assert parity(nets.tiny(), OnnxModel(tmp_path / "side.onnx"), [nets.images(8)])["max_logit_difference"] < 1e-4


def weights(file: Path) -> int:
    """Return the bytes of all weights in a file."""
    return sum(len(initializer.raw_data) for initializer in onnx.load(file).graph.initializer)


def test_an_existing_file_is_replaced_or_kept_whole(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = shutil.copy(file, tmp_path / "tiny.onnx")
    export_onnx(nets.tiny(seed=1), old)
    new = old.read_bytes()
    assert new != file.read_bytes() and list(tmp_path.iterdir()) == [old]

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match="disk is full"):
        onnx_file.write(ir.load(file), old, {}, input="prepared")
    assert old.read_bytes() == new and list(tmp_path.iterdir()) == [old]


class Winding(nn.Module):
    """Takes a path that depends on the values of the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if float(x.mean()) > 0 else x.sum((2, 3))


def test_a_network_without_a_graph_is_refused(tmp_path: Path) -> None:
    classifier = Classifier(Winding(), nets.card())
    with pytest.raises(ModelError, match="test:tiny cannot be exported as ONNX: .*choose another student"):
        export_onnx(classifier, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_beyond_two_gigabytes_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Flatten(), nn.Linear(360, 1_500_000), nn.Linear(1_500_000, 3))
    with pytest.raises(ModelError, match=r"would have 2\.2 GB"):
        export_onnx(Classifier(network, nets.card()), tmp_path / "a.onnx")
