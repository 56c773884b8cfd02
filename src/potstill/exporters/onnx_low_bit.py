"""Export of a quantized network (2-8 bits) as an ONNX file, with packed weights and the speed of 8-bit weights.

The weights in the file are the integers of the network, with its own steps. Layers whose input the network quantizes to
8 bits run in 8 bits with the learned steps; tensors in between that are in float in the network (added or pooled
branches) get 8-bit ranges from calibration, because otherwise their neighbours could not run in 8 bits.
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
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnxruntime.quantization import QuantType
from torch import nn

from potstill.compress.quantize import QuantConv2d, QuantLinear, quantized_layers
from potstill.errors import ModelError
from potstill.exporters import onnx_half, onnx_int8, onnx_packed_weights
from potstill.exporters.onnx_file import metadata_of, write
from potstill.exporters.onnx_float import export_onnx
from potstill.exporters.onnx_slim import slim
from potstill.model_files.onnx_input import InputForm
from potstill.models.outputs import Classifier, bare


def export_quantized(
    classifier: Classifier,
    file: Path,
    calibration: np.ndarray | Iterable[np.ndarray],
    *,
    input: InputForm = "raw",
    temperature: float | None = None,
) -> None:
    """Write a classifier whose network was returned by `compress.quantize.quantized`, before or after training.

    calibration: images as for `quantize_int8`; not used if no layer quantizes its input: then the weights are packed
        in the file and the network runs in float. input: as for `export_onnx`.
    Raises `ModelError` for a network without quantized layers, or with activations below 8 bits, which no runtime
    supports.
    """
    layers = quantized_layers(bare(classifier.network))
    _check(classifier.card.model, layers)
    with tempfile.TemporaryDirectory(prefix="potstill-low-bit-") as folder:
        plain = Path(folder) / "plain.onnx"
        export_onnx(_with_tags(classifier), plain, input="prepared", opset=onnx_packed_weights.OPSET)
        model = onnx.load(plain)
        uses = _find(model, [_Layer.of(layer) for layer in layers.values()], classifier.card.model)
        if any(use.layer.grid for use in uses):
            onnx.save(model, plain)
            options = _options(model, [use for use in uses if use.layer.grid])
            model, _ = onnx_int8.quantized(plain, calibration, name=classifier.card.model, **options)
    _pack(model, uses)
    if any(use.layer.grid for use in uses):
        onnx_half.halve(model.graph)
    small = ir.from_proto(model)
    slim(small)
    write(small, file, metadata_of(classifier.card, temperature), input=input)


def _check(name: str, layers: dict[str, QuantConv2d | QuantLinear]) -> None:
    if not layers:
        raise ModelError(f"{name} has no quantized layers. Quantize it first, or export it with quantize_int8.")
    inputs = [layer.input_quantizer for layer in layers.values() if layer.input_quantizer is not None]
    narrow = sorted({quantizer.bits for quantizer in inputs} - {8})
    if narrow:
        raise ModelError(
            f"{name} has activations with {narrow[0]} bits, and ONNX runtimes support 8 or more. Store it as packed "
            "weights (`pack`), or quantize with --activation-bits 8."
        )


def _with_tags(classifier: Classifier) -> Classifier:
    """Return a copy in float whose quantized layers have unique tags instead of weights, to find them in the graph.

    The exporter renames and transposes weights, and layers may have equal weights (all zeros, for example).
    """
    network = copy.deepcopy(bare(classifier.network)).cpu()
    for number, layer in enumerate(quantized_layers(network).values()):
        layer.weight.data = torch.from_numpy(_tag(number, tuple(layer.weight.shape)))
        setattr(layer, "weight_quantizer", nn.Identity())  # noqa: B010 (not a StepQuantizer, as declared)
        layer.input_quantizer = None
    return Classifier(network, classifier.card)


def _tag(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return a unique weight that is not equal to its own transpose."""
    tag = np.zeros(shape, np.float32)
    tag[0, -1:] = -1
    tag.flat[0] = number + 1
    return tag


LARGEST_BIAS = 2.0**30  # in an int32, with room for the rounding of steps


@dataclass(frozen=True)
class _Layer:
    """The values of a quantized layer: codes int8 [out, ...], one step per channel, (step, zero point) of its input."""

    codes: np.ndarray
    step: np.ndarray
    bits: int
    grid: tuple[float, int] | None

    @classmethod
    def of(cls, layer: QuantConv2d | QuantLinear) -> _Layer:
        weight, inputs = layer.weight_quantizer, layer.input_quantizer
        codes = weight.encode(layer.weight).cpu().numpy().astype(np.int8)
        step = np.broadcast_to(weight.scale.flatten().cpu().numpy(), len(codes)).copy()
        grid = None if inputs is None else (float(inputs.scale), -int(inputs.codes[0]))
        # The step of a channel of zeros is arbitrary; a tiny one would let its bias overflow.
        step[~codes.reshape(len(codes), -1).any(1)] = np.median(step)
        if grid is not None:
            bias = np.zeros(1) if layer.bias is None else layer.bias.detach().abs().cpu().numpy()
            codes, step = _on_steps(codes, step, (bias / (grid[0] * LARGEST_BIAS)).astype(np.float32))
        return cls(codes, step, weight.bits, grid)


def _on_steps(codes: np.ndarray, step: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and steps in float16, none below `least`.

    Pretrained networks have nearly dead channels. Their weights are negligible beside their bias, but their steps are
    so small that the bias, an int32 in units of step times input step, would overflow, or that float16 has no such
    number. Such channels get a larger step, and codes for it.
    """
    larger = onnx_half.rounded(np.maximum(step, least))
    ratio = np.where(larger > 1.01 * step, step / larger, 1.0).reshape(-1, *[1] * (codes.ndim - 1))
    return np.rint(codes * ratio).astype(np.int8), larger


@dataclass(frozen=True)
class _Use:
    """The position of a layer in the graph: `weight` is an initializer, `axis` that of its output channels."""

    layer: _Layer
    node: onnx.NodeProto
    axis: int

    @property
    def weight(self) -> str:
        return self.node.input[1]

    @property
    def codes(self) -> np.ndarray:
        return self._transposed(self.layer.codes)

    @property
    def values(self) -> np.ndarray:
        """The weight as float32, as the graph has it."""
        step = self.layer.step.reshape(-1, *[1] * (self.layer.codes.ndim - 1))
        return self._transposed(self.layer.codes * step)

    def _transposed(self, weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(weight.T) if self.axis else weight


def _find(model: onnx.ModelProto, layers: list[_Layer], name: str) -> list[_Use]:
    """Find each layer by its tag, and replace the tag by the weight.

    The nodes of the graph get names, which are used in the options of onnxruntime.
    """
    held = {initializer.name: initializer for initializer in model.graph.initializer}
    uses = []
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
        if node.op_type in onnx_int8.WEIGHTED and node.input[1] in held:
            weight = numpy_helper.to_array(held[node.input[1]])
            uses += [_Use(layer, node, axis) for layer, axis in _tagged(weight, layers)]
    found = len({id(use.layer) for use in uses})
    if found < len(layers):
        raise ModelError(
            f"{name} cannot be exported with its integer weights: {len(layers) - found} of {len(layers)} quantized "
            "layers are not found in the graph. Fold BatchNorm into the layers before quantizing (`fold_batchnorm`)."
        )
    for use in uses:
        held[use.weight].CopyFrom(numpy_helper.from_array(use.values, use.weight))
    return uses


def _tagged(weight: np.ndarray, layers: list[_Layer]) -> Iterator[tuple[_Layer, int]]:
    """Yield the layer with this tag, and the axis of its output channels."""
    number = round(float(weight.flat[0])) - 1 if weight.size else -1
    if not 0 <= number < len(layers):
        return
    tag = _tag(number, layers[number].codes.shape)
    if np.array_equal(weight, tag):
        yield layers[number], 0
    elif weight.ndim == 2 and np.array_equal(weight, tag.T):
        yield layers[number], 1


def _options(model: onnx.ModelProto, uses: list[_Use]) -> dict[str, Any]:
    """Return the options for onnxruntime: the grids of the network, and its float layers."""
    quantized = {use.node.name for use in uses}
    weighted = [node.name for node in model.graph.node if node.op_type in onnx_int8.WEIGHTED]
    floats = [name for name in weighted if name not in quantized]
    extra = {"TensorQuantOverrides": dict(_overrides(uses)), "QuantizeBias": False}
    return {"nodes_to_exclude": floats, "extra_options": extra}


def _overrides(uses: list[_Use]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the grids of weights and inputs in the format of onnxruntime."""
    widest: dict[str, tuple[float, int]] = {}
    for use in uses:
        channels = [{"scale": step, "zero_point": 0, "quant_type": QuantType.QInt8} for step in use.layer.step]
        channels[0]["axis"] = use.axis
        yield use.weight, channels
        # Two layers may read one tensor with different steps, but the graph has it once.
        assert use.layer.grid is not None, "only layers with quantized inputs"
        widest[use.node.input[0]] = max(widest.get(use.node.input[0], (0.0, 0)), use.layer.grid)
    for tensor, (step, zero) in widest.items():
        grid = {"scale": np.array(step, np.float32), "zero_point": np.array(zero, np.uint8)}
        yield tensor, [{**grid, "quant_type": QuantType.QUInt8}]


def _pack(model: onnx.ModelProto, uses: list[_Use]) -> None:
    """Store the codes of each layer with its number of bits, in place."""
    packer = onnx_packed_weights.Packer(model.graph)
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
