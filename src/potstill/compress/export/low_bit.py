"""A quantized network (2 to 8 bits) as an ONNX file: as small as its bits, as fast as 8-bit weights.

The weights in the file are the integers that the network computed with, under its own steps. Layers whose input the
network quantizes to 8 bits run in 8 bits with the steps it learned; the tensors that it left in float in between
(branches that are added, pooled) get 8 bits from calibration, without which nothing around them would run in 8 bits.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType
from torch import nn

from potstill.compress.export import int8, packed
from potstill.compress.export.file import metadata_of, write
from potstill.compress.export.graph import export_onnx
from potstill.compress.export.slim import slim
from potstill.compress.quantize import QuantConv2d, QuantLinear, quantized_layers
from potstill.errors import ModelError
from potstill.models.outputs import Classifier, bare

WEIGHTED = ("Conv", "Gemm", "MatMul")


def export_quantized(
    classifier: Classifier,
    file: Path,
    calibration: np.ndarray | Iterable[np.ndarray],
    *,
    temperature: float | None = None,
) -> None:
    """Write a classifier whose network came out of `compress.quantize.quantized`, trained on or not.

    calibration: images as for `quantize_int8`; not looked at where no layer quantizes its input: then the weights
        are small in the file and the network runs in float.
    Raises `ModelError` for a network without quantized layers, or with activations below 8 bits, which no runtime has.
    """
    layers = quantized_layers(bare(classifier.network))
    _check(classifier.card.model, layers)
    with tempfile.TemporaryDirectory(prefix="potstill-low-bit-") as folder:
        plain = Path(folder) / "plain.onnx"
        export_onnx(_with_rounded_weights(classifier), plain, opset=packed.OPSET)
        model = onnx.load(plain)
        uses = _find(model, [_Layer.of(layer) for layer in layers.values()], classifier.card.model)
        if any(use.layer.grid for use in uses):
            onnx.save(model, plain)
            options = _options(model, [use for use in uses if use.layer.grid])
            model, _ = int8.quantized(plain, calibration, name=classifier.card.model, **options)
    _pack(model, uses)
    slim(model)
    write(model, file, metadata_of(classifier.card, temperature))


def _check(name: str, layers: dict[str, QuantConv2d | QuantLinear]) -> None:
    if not layers:
        raise ModelError(f"{name} has no quantized layers. Quantize it first, or export it with quantize_int8.")
    inputs = [layer.input_quantizer for layer in layers.values() if layer.input_quantizer is not None]
    narrow = sorted({quantizer.bits for quantizer in inputs} - {8})
    if narrow:
        raise ModelError(
            f"{name} has activations of {narrow[0]} bits, and ONNX runtimes compute with 8 or more. Keep it as packed "
            "weights (`pack`), or quantize with --activation-bits 8."
        )


def _with_rounded_weights(classifier: Classifier) -> Classifier:
    """Return a copy that computes in float with the rounded weights."""
    network = copy.deepcopy(bare(classifier.network)).cpu()
    for layer in quantized_layers(network).values():
        layer.weight.data = layer.weight_quantizer(layer.weight).detach()
        layer.weight_quantizer, layer.input_quantizer = nn.Identity(), None
    return Classifier(network, classifier.card)


@dataclass(frozen=True)
class _Layer:
    """The numbers of a quantized layer: codes int8 [out, ...], a step a channel, (step, zero point) of its input."""

    codes: np.ndarray
    step: np.ndarray
    bits: int
    grid: tuple[float, int] | None

    @classmethod
    def of(cls, layer: QuantConv2d | QuantLinear) -> _Layer:
        weight, given = layer.weight_quantizer, layer.input_quantizer
        codes = weight.encode(layer.weight).cpu().numpy().astype(np.int8)
        step = np.broadcast_to(weight.scale.flatten().cpu().numpy(), len(codes)).copy()
        grid = None if given is None else (float(given.scale), -int(given.codes[0]))
        # A channel of zeros has any step; a tiny one would let its bias overflow.
        step[~codes.reshape(len(codes), -1).any(1)] = np.median(step)
        return cls(codes, step, weight.bits, grid)


@dataclass(frozen=True)
class _Use:
    """Where a layer stands in the graph: `weight` is an initializer, `axis` the one of its output channels."""

    layer: _Layer
    node: onnx.NodeProto
    axis: int

    @property
    def weight(self) -> str:
        return self.node.input[1]

    @property
    def codes(self) -> np.ndarray:
        return np.ascontiguousarray(self.layer.codes.T) if self.axis else self.layer.codes


def _find(model: onnx.ModelProto, layers: list[_Layer], name: str) -> list[_Use]:
    """Find each layer by the values of its weight, which the exporter may have renamed or transposed.

    The nodes of the graph get names, by which onnxruntime is told about them.
    """
    known: dict[tuple[Any, ...], tuple[_Layer, int]] = {}
    for layer in layers:
        weight = layer.codes * layer.step.reshape(-1, *[1] * (layer.codes.ndim - 1))
        if weight.ndim == 2:
            known[_key(weight.T)] = layer, 1
        known[_key(weight)] = layer, 0
    held = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    uses = []
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
        if node.op_type in WEIGHTED and node.input[1] in held:
            key = _key(held[node.input[1]])
            if key in known:
                uses.append(_Use(known[key][0], node, known[key][1]))
    if {id(use.layer) for use in uses} != {id(layer) for layer in layers}:
        raise ModelError(
            f"{name} cannot be written with its integers: {len(layers) - len(uses)} of {len(layers)} quantized layers "
            "are not in the graph as they are. Fold BatchNorm into the layers before quantizing (`fold_batchnorm`)."
        )
    return uses


def _key(weight: np.ndarray) -> tuple[Any, ...]:
    return weight.shape, (weight + 0.0).tobytes()  # -0.0 becomes 0.0


def _options(model: onnx.ModelProto, uses: list[_Use]) -> dict[str, Any]:
    """Return what onnxruntime must know: the grids of the network, and the layers that it left in float."""
    mine = {use.node.name for use in uses}
    floats = [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.name not in mine]
    return {"nodes_to_exclude": floats, "extra_options": {"TensorQuantOverrides": dict(_overrides(uses))}}


def _overrides(uses: list[_Use]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the grids of weights and inputs as onnxruntime takes them."""
    widest: dict[str, tuple[float, int]] = {}
    for use in uses:
        channels = [{"scale": step, "zero_point": 0, "quant_type": QuantType.QInt8} for step in use.layer.step]
        channels[0]["axis"] = use.axis
        yield use.weight, channels
        # Two layers may read one tensor under different steps; the graph has it once.
        widest[use.node.input[0]] = max(widest.get(use.node.input[0], (0.0, 0)), use.layer.grid)
    for tensor, (step, zero) in widest.items():
        grid = {"scale": np.array(step, np.float32), "zero_point": np.array(zero, np.uint8)}
        yield tensor, [{**grid, "quant_type": QuantType.QUInt8}]


def _pack(model: onnx.ModelProto, uses: list[_Use]) -> None:
    """Store the codes of each layer in its bits, in place."""
    packer = packed.Packer(model.graph)
    held = {initializer.name: initializer for initializer in model.graph.initializer}
    for use in {use.weight: use for use in uses}.values():
        whole = f"{use.weight}_quantized"
        if whole in held:
            assert (numpy_helper.to_array(held[whole]) == use.codes).all(), f"{use.weight} is on another grid"
            model.graph.initializer.remove(held[whole])
            packer.add(whole, use.codes, use.layer.bits)
        else:
            model.graph.initializer.remove(held[use.weight])
            packer.add_float(use.weight, use.codes, use.layer.bits, use.layer.step, use.axis)
    packer.finish()
