"""No file is delivered that does not compute what it should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from potstill import progress
from potstill.errors import ModelError
from potstill.exporters import export_onnx, gate, quantize_int8
from potstill.model_files.onnx import OnnxModel
from potstill.models.outputs import Classifier, Outputs
from tests.export import nets


class Otherwise(nn.Module):
    """A network that computes something else when it is exported, as a wrong conversion does."""

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network, self.share = network, share

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        return logits * (1 + self.share) if torch.compiler.is_exporting() else logits


def exported(network: Classifier, file: Path) -> Classifier:
    export_onnx(network, file)
    return network


@pytest.fixture(scope="module")
def images() -> Tensor:
    return nets.images(64)


def test_a_right_file_passes(tmp_path: Path, images: Tensor) -> None:
    file = tmp_path / "model.onnx"
    gate.check_float(file, exported(nets.tiny(), file), images)
    gate.check_float(file, nets.tiny(), gate.noise(nets.tiny()))
    assert file.is_file()


@pytest.mark.parametrize("share", [-2.0, 0.05])
def test_a_file_that_computes_something_else_is_not_left(tmp_path: Path, images: Tensor, share: float) -> None:
    file, plain = tmp_path / "model.onnx", nets.tiny()
    network = plain.replace(network=Otherwise(plain.network, share))
    exported(network, file)
    with pytest.raises(ModelError, match=r"model.onnx was not delivered") as caught:
        gate.check_float(file, network, images)
    assert not file.exists() and "logits that differ by up to" in str(caught.value)
    assert share < -1 or "for 100.0 %" in str(caught.value)


@pytest.mark.parametrize(
    ("count", "others", "delivered"), [(13, 1, True), (13, 2, False), (9, 1, False), (64, 2, False)]
)
def test_one_image_of_few_may_differ_after_quantization(
    tmp_path: Path, images: Tensor, count: int, others: int, delivered: bool
) -> None:
    file, network = tmp_path / "model.onnx", nets.tiny().eval()
    file.write_bytes(b"")

    def otherwise(image: Tensor) -> Outputs:
        logits = network(image).logits
        return Outputs(torch.cat([-logits[:others], logits[others:]]))

    if delivered:
        gate.check_quantized(file, network, images[:count], opened=otherwise)
    else:
        with pytest.raises(ModelError, match="was not delivered"):
            gate.check_quantized(file, network, images[:count], opened=otherwise)
    assert file.is_file() == delivered


def test_equal_logits_are_no_disagreement(tmp_path: Path, images: Tensor) -> None:
    file, network = tmp_path / "model.onnx", nets.tiny()
    for parameter in network.network.get_submodule("head").parameters():
        nn.init.zeros_(parameter)
    exported(network, file)
    shifted = OnnxModel(file)

    def noisy(image: Tensor) -> Outputs:
        return Outputs(shifted(image).logits + 1e-5 * torch.rand(len(image), 3))

    gate.check_float(file, network, images, opened=noisy)


def test_an_int8_file_is_compared_with_its_own_rounding(tmp_path: Path, images: Tensor) -> None:
    file, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    network = exported(nets.tiny(), file)
    quantize_int8(file, small, images.numpy())
    gate.check_int8(small, network, images, source="runs/d [1]")
    with pytest.raises(ModelError, match="the class of its quantized simulation"):
        gate.check_quantized(small, lambda image: Outputs(-network.eval()(image).logits), images)
    assert not small.exists()


def test_what_quantization_costs_is_noted_and_no_error(tmp_path: Path, images: Tensor) -> None:
    file, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    network = nets.tiny().eval()
    with torch.no_grad():  # otherwise nearly all images are of one class
        network.network.get_parameter("head.bias").sub_(network(images).logits.mean(0))
    exported(network, file)
    quantize_int8(file, small, 0.01 * images.numpy())  # ranges of dark images: bright ones are clipped
    gate.check_int8(small, network, images, source="runs/d [1]")
    note = progress.display().notes[-1]
    assert small.is_file() and "Quantization to 8 bits changes the class of" in note
    assert note.endswith("potstill quantize 'runs/d [1]' --mode qat")
