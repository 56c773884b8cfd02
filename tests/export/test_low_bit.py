"""Below 8 bits: the file is as small as its bits, says what the quantized network says, and runs in 8 bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from potstill.compress.quantize import fold_batchnorm, observe, packed_bytes, quantized
from potstill.errors import ModelError
from potstill.exporters import export_quantized, parity
from potstill.exporters.onnx_packed_weights import OPSET, Packer
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import prepared
from potstill.models.outputs import Classifier

from . import nets

pytestmark = pytest.mark.slow


class Mixed(nn.Module):
    """Every way a weight stands in a graph: convolution, depthwise, product of tokens, dense; a sum between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.tokens = nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.depthwise(x) + x)
        return self.head(torch.relu(self.tokens(x.flatten(2).mT)).mean(1))


BITS = {"stem.0": 3, "depthwise": 5, "tokens": 4, "head": 2}


def low_bit(**options: object) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Mixed()
        nn.init.normal_(network.head.weight, std=2.0)
        network.stem[0].weight.data[0] *= 1e-9  # a dead channel: its bias in units of its step would overflow
        network.stem[1].bias.data[0] = 3.0
    classifier = Classifier(network, nets.card()).eval()
    image = classifier.prepare(nets.images(64, seed=3))
    folded = fold_batchnorm(network, image[:1])
    return classifier.replace(network=quantized(folded, observe(folded, [image]), layer_bits=BITS, **options)).eval()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return low_bit()


@pytest.fixture(scope="module")
def exported(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("low") / "low.onnx"
    export_quantized(classifier, file, nets.images(64, seed=3).numpy(), temperature=1.5)
    return file


def test_it_says_what_the_quantized_network_says(classifier: Classifier, exported: Path) -> None:
    image = nets.images(200)
    with torch.no_grad():
        said = classifier(image).logits
    result = parity(classifier, OnnxModel(exported, threads=1), image.split(50))
    assert result["agreement"] >= 98
    assert result["max_logit_difference"] < 0.05 * float(said.max() - said.min())
    assert OnnxModel(exported).card == classifier.card and OnnxModel(exported).temperature == 1.5


def test_it_runs_in_8_bits_with_nothing_left_to_unpack(exported: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "running.onnx")
    options.log_severity_level = 3
    network = prepared(onnx.load(exported)).SerializeToString()
    onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    running = Counter(node.op_type for node in onnx.load(tmp_path / "running.onnx").graph.node)
    assert running["QLinearConv"] == 2 and running["QLinearAdd"] == 2  # the branches; the bias of `tokens`
    assert not {"BitShift", "BitwiseOr", "Split", "Cast", "Conv"} & set(running)


def test_without_activation_bits_it_is_the_same_network(tmp_path: Path) -> None:
    classifier = low_bit(activation_bits=None)
    export_quantized(classifier, tmp_path / "low.onnx", [])
    result = parity(classifier, OnnxModel(tmp_path / "low.onnx", threads=1), [nets.images(32)])
    assert result["max_logit_difference"] < 1e-4
    kinds = {node.op_type for node in onnx.load(tmp_path / "low.onnx").graph.node}
    assert not {"QuantizeLinear", "DequantizeLinear"} & kinds


def test_codes_take_their_bits(classifier: Classifier, exported: Path) -> None:
    graph = onnx.load(exported).graph
    columns = [i for i in graph.initializer if i.data_type == TensorProto.UINT8 and list(i.dims)[1:] == [1]]
    fours = [i for i in graph.initializer if i.data_type == TensorProto.INT4]
    assert fours and len(columns) >= 3
    stored = sum(len(i.raw_data) for i in [*columns, *fours])
    bias = 16  # of `tokens`, which stands in the graph as a sum of its own, in 8 bits
    assert stored <= packed_bytes(classifier.network) + bias + 2


def test_steps_and_biases_take_two_bytes_each(exported: Path) -> None:
    stored = onnx.load(exported).graph.initializer
    halves = [i for i in stored if i.data_type == TensorProto.FLOAT16]
    steps, biases = 8 + 8 + 16, 8 + 8  # that of `tokens` stands in the graph as a sum; the head's three are too few
    assert [sum(i.dims) for i in halves] == [steps + biases]
    assert not [i for i in stored if i.data_type == TensorProto.INT32 and i.dims]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (5, 7), (3,)])
def test_any_width_comes_back(bits: int, shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(bits).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8)
    codes.flat[:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    output = helper.make_tensor_value_info("y", TensorProto.INT8, shape)
    given = helper.make_tensor_value_info("x", TensorProto.INT8, shape)
    graph = helper.make_graph([helper.make_node("BitwiseOr", ["x", "w"], ["y"])], "g", [given], [output])
    packer = Packer(graph)
    packer.add("w", codes, bits)
    packer.finish()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    said = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.zeros(shape, np.int8)})[0]
    np.testing.assert_array_equal(said, codes)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file, images = tmp_path / "low.onnx", nets.images(8).numpy()
    with pytest.raises(ModelError, match="has no quantized layers. Quantize it first"):
        export_quantized(nets.tiny(), file, images)
    with pytest.raises(ModelError, match="activations with 4 bits, and ONNX runtimes support 8 or more"):
        export_quantized(low_bit(activation_bits=4, first_last_bits=None), file, images)
    unfolded = nets.tiny().eval()
    seen = observe(unfolded.network, [unfolded.prepare(nets.images(8))])
    with pytest.raises(ModelError, match=r"2 of 3 quantized layers are not found in the graph. Fold BatchNorm"):
        export_quantized(unfolded.replace(network=quantized(unfolded.network, seen)), file, images)
    assert not file.exists()


class Repeated(nn.Module):
    """Layers of one shape, square ones too, in an order that is not that of their names."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.dense = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.last(torch.relu(self.first(x)))
        return self.head(self.dense(x.mean((2, 3))))


@pytest.mark.parametrize("activation_bits", [8, None])
def test_layers_of_equal_weights_are_told_apart(tmp_path: Path, activation_bits: int | None) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Repeated().eval()
    for layer in (network.first, network.last):
        nn.init.zeros_(layer.weight)
        nn.init.normal_(layer.bias)
    nn.init.normal_(network.head.weight, std=2.0)
    network.dense[2].weight.data = network.dense[0].weight.data.T.clone()  # alike in a graph that transposes
    classifier = Classifier(network, nets.card())
    image = classifier.prepare(nets.images(64, seed=3))
    quant = classifier.replace(
        network=quantized(network, observe(network, [image]), weight_bits=4, activation_bits=activation_bits).eval()
    )
    export_quantized(quant, tmp_path / "low.onnx", nets.images(64, seed=3).numpy())
    result = parity(quant, OnnxModel(tmp_path / "low.onnx", threads=1), [nets.images(64)])
    with torch.no_grad():
        said = quant(nets.images(64)).logits
    assert result["max_logit_difference"] < (0.05 if activation_bits else 1e-5) * float(said.abs().max())
