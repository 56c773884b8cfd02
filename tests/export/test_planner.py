"""What a graph needs on a device, against graphs computed by hand and published networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper

from potstill.compress.quantize import fold_batchnorm, observe, quantized
from potstill.errors import ModelError
from potstill.exporters import export_onnx, export_quantized, quantize_int8
from potstill.exporters.footprint import CODE, footprint
from potstill.exporters.onnx_file import metadata_of, write
from potstill.exporters.reference_nets import reference_net
from potstill.model_files.planner import Plan, plan
from potstill.models import zoo
from potstill.models.card import Card
from potstill.models.inspect.macs import cost

IMAGE = 3 * 8 * 8
MAP = 4 * 8 * 8  # four channels
WEIGHTS = {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3), "p": (4, 4, 1, 1), "d": (4, 1, 3, 3), "q": (4, 8, 1, 1)}
WEIGHTS |= {"g": (4, 10), "h": (8, 10), "m": (1, 3, 1, 1), "s": (4,), "b": (4,)}
SAME = "pads = [1, 1, 1, 1]"
TAIL = "pool = GlobalAveragePool(last) flat = Flatten(pool) logits = Gemm(flat, g)"


def planned(body: str, folder: Path, tail: str = TAIL) -> Plan:
    """Return the plan of a graph from `image` [N, 3, 8, 8] to `logits`; body: ONNX text that ends in a map `last`."""
    text = (
        f'<ir_version: 10, opset_import: ["" : 20]> net (float[N,3,8,8] image) => (float[N,10] logits) {{{body}{tail}}}'
    )
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name in sorted(used & WEIGHTS.keys()):
        values = np.random.default_rng(0).random(WEIGHTS[name], dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    card = Card("hand", tuple("0123456789"), 3, (8, 8), (0.5,) * 3, (0.5,) * 3, 8, (8, 8))
    write(ir.from_proto(model), folder / "hand.onnx", metadata_of(card, None), input="prepared")
    return plan(folder / "hand.onnx")


def test_a_chain_holds_two_tensors_and_its_rectifiers_none(tmp_path: Path) -> None:
    made = planned(f"c1 = Conv<{SAME}>(image, w) r1 = Relu(c1) c2 = Conv<{SAME}>(r1, v) last = Relu(c2)", tmp_path)
    assert made.live == (IMAGE + MAP, MAP + MAP, MAP + 4, 4 + 10)
    assert made.operators == ("Conv", "Conv", "GlobalAveragePool", "Gemm")
    assert [layer.macs for layer in made.layers] == [64 * 4 * 27, 64 * 4 * 36, 40]
    assert made.peak == 2 * MAP and made.parameters == 108 + 144 + 40


def test_preparation_of_the_image_is_the_image(tmp_path: Path) -> None:
    made = planned(f"a = Sub(image, m) b1 = Div(a, m) last = Conv<{SAME}>(b1, w)", tmp_path)
    assert made.live == (IMAGE + MAP, MAP + 4, 4 + 10)
    assert made.others == 0  # mean and std become part of the first layer, or of how the image is read


def test_a_residual_block_keeps_its_input(tmp_path: Path) -> None:
    body = f"c1 = Conv<{SAME}>(image, w) c2 = Conv<{SAME}>(c1, v) r2 = Relu(c2) c3 = Conv<{SAME}>(r2, v) "
    made = planned(f"{body} a = Add(c3, c1) last = Relu(a)", tmp_path)
    assert made.live == (IMAGE + MAP, 2 * MAP, 3 * MAP, 3 * MAP, MAP + 4, 14)


def test_concatenation_copies(tmp_path: Path) -> None:
    body = f"c1 = Conv<{SAME}>(image, w) c2 = Conv<{SAME}>(c1, v) last = Concat<axis=1>(c1, c2) "
    made = planned(body, tmp_path, TAIL.replace("g)", "h)"))
    assert made.live == (IMAGE + MAP, 2 * MAP, 4 * MAP, 2 * MAP + 8, 8 + 10)


def test_an_inception_branch_keeps_the_image_until_its_last_reader(tmp_path: Path) -> None:
    body = f"a1 = Conv<{SAME}>(image, w) b1 = Conv<{SAME}>(image, w) b2 = Conv<{SAME}>(b1, v) "
    made = planned(f"{body} last = Concat<axis=1>(a1, b2) ", tmp_path, TAIL.replace("g)", "h)"))
    assert made.live == (IMAGE + MAP, IMAGE + 2 * MAP, 3 * MAP, 4 * MAP, 2 * MAP + 8, 18)


def test_a_rectifier_whose_input_is_read_again_needs_memory(tmp_path: Path) -> None:
    made = planned(f"c1 = Conv<{SAME}>(image, w) r1 = Relu(c1) last = Add(r1, c1)", tmp_path)
    assert made.live == (IMAGE + MAP, 2 * MAP, 3 * MAP, MAP + 4, 14)


def test_other_activations_write_their_own_tensor(tmp_path: Path) -> None:
    made = planned(f"c1 = Conv<{SAME}>(image, w) h1 = HardSigmoid(c1) last = Mul(c1, h1)", tmp_path)
    assert made.live == (IMAGE + MAP, 2 * MAP, 3 * MAP, MAP + 4, 14)


def test_batch_norm_is_folded_behind_a_layer_only(tmp_path: Path) -> None:
    folded = planned(f"c1 = Conv<{SAME}>(image, w) last = BatchNormalization(c1, s, b, s, b)", tmp_path)
    alone = planned(
        f"c1 = Conv<{SAME}>(image, w) x = MaxPool<kernel_shape=[1,1]>(c1) last = BatchNormalization(x, s, b, s, b)",
        tmp_path,
    )
    assert folded.live == (IMAGE + MAP, MAP + 4, 14)
    assert alone.live == (IMAGE + MAP, 2 * MAP, 2 * MAP, MAP + 4, 14)


def test_depthwise_layers_are_known(tmp_path: Path) -> None:
    made = planned(f"c1 = Conv<{SAME}>(image, w) last = Conv<group=4, {SAME}>(c1, d)", tmp_path)
    assert [layer.depthwise for layer in made.layers] == [False, True, False]
    assert made.layers[1].macs == 64 * 4 * 9


def test_weights_of_few_bits_keep_the_ends_at_eight(tmp_path: Path) -> None:
    made = planned(f"c1 = Conv<{SAME}>(image, w) last = Conv<{SAME}>(c1, v, b)", tmp_path)
    scales = 8 * (4 + 4 + 10)
    assert made.weight_bytes(8) == 108 + 144 + 40 + scales
    assert made.weight_bytes(4) == 108 + 72 + 40 + scales
    assert made.weight_bytes(32) == 4 * (108 + 144 + 4 + 40)


def test_a_graph_without_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no layer with weights"):
        planned("flat = Flatten(image) logits = ReduceMean(flat)", tmp_path, "")


def test_float_and_integer_files_have_one_plan(tmp_path: Path) -> None:
    sizes = {"kind": "residual", "width": 16, "size": 32}
    floating = reference_net(tmp_path / "float.onnx", **sizes)
    integer = reference_net(tmp_path / "int8.onnx", **sizes, int8=True)
    first, second = plan(floating), plan(integer)
    assert (first.macs, first.parameters, first.peak) == (second.macs, second.parameters, second.peak)
    assert first.peak == 3 * 16 * 32 * 32  # a block's input, its second convolution and their sum
    assert first.weight_bytes(8) == pytest.approx(integer.stat().st_size, rel=0.06)
    assert first.weight_bytes(32) == pytest.approx(floating.stat().st_size, rel=0.01)


@pytest.mark.slow
def test_an_untrained_network_costs_what_its_file_costs(tmp_path: Path) -> None:
    untrained = zoo.create("builtin:small-cnn", classes=tuple("0123456789"), size=(16, 16))
    trained = zoo.create("builtin:small-cnn", classes=tuple("0123456789"), size=(16, 16), seed=1)
    images = np.random.default_rng(1).random((16, 3, 16, 16), dtype=np.float32)
    with torch.random.fork_rng():
        for parameter in trained.parameters():  # biases are zero before training
            parameter.data += 0.05 * torch.randn(parameter.shape)
    export_onnx(trained, tmp_path / "float.onnx")
    quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", images)
    before, after = footprint(untrained), footprint(tmp_path / "int8.onnx")
    assert before.bytes == pytest.approx(after.bytes, rel=0.005)
    assert before.to_json() | {"bytes": 0} == after.to_json() | {"bytes": 0}
    assert before.flash == before.weights + CODE and before.ram_float == 4 * before.ram_int8
    assert before.macs == cost(trained.network, torch.rand(1, 3, 16, 16)).total_macs
    folded = fold_batchnorm(trained.network, torch.from_numpy(images[:2]))
    four = quantized(folded, observe(folded, [torch.from_numpy(images)]), weight_bits=4)
    export_quantized(trained.replace(network=four), tmp_path / "int4.onnx", images)
    assert footprint(untrained, bits=4).bytes == pytest.approx((tmp_path / "int4.onnx").stat().st_size, rel=0.04)


@pytest.mark.slow
def test_mobilenet_of_the_benchmark_needs_55_kilobytes() -> None:
    """Visual wake words of MLPerf Tiny: 7.49 M multiply-accumulates; STM32Cube.AI 9.1 publishes 67 KiB with scratch."""
    made = footprint(zoo.create("builtin:mobilenet-v1", classes=("a", "b"), size=(96, 96), options={"width": 0.25}))
    assert made.ram_int8 == 48 * 48 * (8 + 16) == 55_296
    assert made.macs == pytest.approx(7.49e6, rel=0.01)


def test_reference_nets_are_what_they_say(tmp_path: Path) -> None:
    residual = plan(reference_net(tmp_path / "a.onnx", kind="residual", width=8, size=16))
    separable = plan(reference_net(tmp_path / "b.onnx", kind="separable", width=8, size=16, int8=True))
    assert residual.peak == 3 * 8 * 16 * 16 and separable.peak == 2 * 8 * 16 * 16
    assert not any(layer.depthwise for layer in residual.layers)
    assert sum(layer.depthwise for layer in separable.layers) == 6
    first = 16 * 16 * 8  # outputs of the convolutions at full size
    assert (
        residual.macs
        == first * (27 + 72 * 4 + (72 / 2 + 72 * 3 * 2 / 2 + 8 / 2) + (72 / 2 + 72 * 3 * 2 / 2 + 8 / 2)) + 320
    )


def test_latency_is_measured_beside_a_reference(tmp_path: Path) -> None:
    small = reference_net(tmp_path / "small.onnx", kind="separable", width=8, size=16)
    made = footprint(small, bits=32, time=True, seconds=0.05)
    assert made.latency_ms is not None and made.latency_ratio is not None
    assert 0 < made.latency_ratio < 0.7 and made.ram == made.ram_float
