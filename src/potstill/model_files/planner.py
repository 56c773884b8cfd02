"""What an ONNX file needs on a device: multiply-accumulates, weights, and the memory of its activations.

The peak of the activations is the largest sum of tensors that are alive at one operator, in the order of the graph, for
one image. The image is one of them, and so is the operator's own output: operators do not work in place, as in
TensorFlow Lite Micro (arXiv:2010.08678). What a runtime does not keep as a tensor of its own is not counted:

- ReLU, ReLU6 and scaling by constants, BatchNorm included, that only read what a layer has just written (fused),
- views: reshaping, flattening, quantization and dequantization,
- what prepares the image (scaling to 0..1, resizing, normalisation): the network's input is counted instead.

A runtime adds a few kB of its own, and a memory arena may be some percent larger than the sum, because tensors in it
must not move.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import prepared
from potstill.model_files.onnx_values import with_outputs

WEIGHT = {"Conv": 1, "Gemm": 1, "MatMul": 1, "ConvTranspose": 1, "QLinearConv": 3, "QLinearMatMul": 3}
WEIGHT |= {"ConvInteger": 1, "MatMulInteger": 1}
"""Operators with weights, and which of their inputs these are."""
INTEGER = frozenset(("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"))
VIEWS = frozenset("Identity Dropout Reshape Flatten Squeeze Unsqueeze Cast QuantizeLinear DequantizeLinear".split())
RECTIFIERS = frozenset(("Relu", "Clip"))
SCALING = frozenset("BatchNormalization Add Sub Mul Div".split())
"""Fused into a layer with weights, where they read only its output and constants."""
PREPARING = VIEWS | frozenset("Sub Div Mul Add Clip Resize Transpose Slice Gather Pad Round Floor Expand".split())
SHAPE_ONLY = frozenset(("Shape", "Size"))


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its number of weights, output channels, biases, and multiply-accumulates of one image.

    depthwise: whether it is a convolution with one input channel a group.
    """

    kind: str
    weights: int
    channels: int
    biases: int
    macs: int
    depthwise: bool


@dataclass(frozen=True)
class Plan:
    """What a graph needs for one image.

    layers: with weights, in the order of the graph. others: constants that are neither weights nor biases of layers.
    live: elements of all tensors that are alive, at each operator that runs on a device. operators: their kinds.
    bits: of the activations: 8 where layers have integer inputs, else 32.
    """

    layers: tuple[Layer, ...]
    others: int
    live: tuple[int, ...]
    operators: tuple[str, ...]
    bits: int = 32

    @property
    def macs(self) -> int:
        """Multiply-accumulates with weights (products of two activations are not counted, as in `inspect.macs`)."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights, biases and other constants."""
        return sum(layer.weights + layer.biases for layer in self.layers) + self.others

    @property
    def channels(self) -> int:
        """Output channels of all layers with weights."""
        return sum(layer.channels for layer in self.layers)

    @property
    def peak(self) -> int:
        """The largest number of elements alive: the bytes of activations in 8 bits, a quarter of those in float32."""
        return max(self.live)

    def weight_bytes(self, bits: int, first_last_bits: int = 8) -> int:
        """Return the bytes of all constants: float32 for 32 bits, else integers.

        Integer layers have a 32-bit bias and a float32 scale for each output channel; the weights of the first and
        the last layer have `first_last_bits`, if these are more. Other constants stay in float32.
        """
        if bits == 32:
            return 4 * self.parameters
        ends = (0, len(self.layers) - 1)
        each = [max(bits, first_last_bits) if place in ends else bits for place in range(len(self.layers))]
        weights = sum(math.ceil(layer.weights * b / 8) for layer, b in zip(self.layers, each, strict=True))
        return weights + 8 * self.channels + 4 * self.others


def plan(file: Path) -> Plan:
    """Return what an ONNX file needs on a device; it is run once, on noise, for the shapes of its tensors.

    Float files and 8-bit files of the same network have the same layers; the quantizer may order branches otherwise,
    so that their peaks differ a little. Raises `ModelError` if the file cannot be run,
    or has no layer with weights.
    """
    graph = _Graph(file)
    layers = tuple(graph.layers())
    if not layers:
        raise ModelError(f"{file} has no layer with weights, so there is nothing to plan. Give a neural network.")
    live, operators = graph.live()
    return Plan(layers, graph.others(), tuple(live), tuple(operators), 8 if graph.integer else 32)


@dataclass
class _Buffer:
    """A piece of memory: its largest content in elements, and the steps at which it is written first and used last."""

    elements: int
    first: int
    last: int = field(default=-1)


class _Graph:
    """The graph of a file, with the shapes of all its tensors for one image."""

    def __init__(self, file: Path) -> None:
        model = prepared(onnx.load(file))
        self._graph = model.graph
        self._shapes = {tensor.name: tuple(tensor.dims) for tensor in self._graph.initializer}
        self._outputs = {value.name for value in self._graph.output}
        running = OnnxModel(file, threads=1)
        card = running.card
        image = running.arranged(torch.full((1, card.channels, *card.crop), 0.5))
        self._input = self._graph.input[0].name
        self._shapes |= {self._input: image.shape, **_run(model, file, {self._input: image})}
        self._constant = self._constants()
        self._nodes = [node for node in self._graph.node if not all(name in self._constant for name in node.output)]
        self._readers = self._real_readers()
        self._makers = {name: node for node in self._nodes for name in node.output}

    def _constants(self) -> set[str]:
        """Return the names of tensors that do not depend on the image, or only on its shape."""
        constant = {tensor.name for tensor in self._graph.initializer} | {""}
        for node in self._graph.node:
            if node.op_type in SHAPE_ONLY or all(name in constant for name in node.input):
                constant.update(node.output)
        return constant - {self._input}

    def _real_readers(self) -> dict[str, list[int]]:
        """Return, for each tensor, the steps that read it, through views."""
        readers: dict[str, list[int]] = {name: [len(self._nodes)] for name in self._outputs}
        for step in reversed(range(len(self._nodes))):
            node = self._nodes[step]
            through = [s for name in node.output for s in readers.get(name, [])] if node.op_type in VIEWS else [step]
            for name in node.input:
                readers.setdefault(name, []).extend(through)
        return readers

    @property
    def integer(self) -> bool:
        """Whether activations are quantized."""
        return any(node.op_type in INTEGER for node in self._nodes)

    def layers(self) -> Iterator[Layer]:
        """Yield the layers with weights."""
        for node in self._nodes:
            place = WEIGHT.get(node.op_type)
            if place is not None and node.input[place] in self._constant:
                yield self._layer(node, self._shapes[node.input[place]])

    def _layer(self, node: onnx.NodeProto, shape: tuple[int, ...]) -> Layer:
        out = self._shapes[node.output[0]]
        convolves, transposed = "Conv" in node.op_type, node.op_type == "ConvTranspose"
        sites = math.prod(self._shapes[node.input[0]] if transposed else out)
        each = math.prod(shape[1:]) if convolves else shape[-2] if "MatMul" in node.op_type else math.prod(shape)
        each = each // out[-1] if node.op_type == "Gemm" else each
        channels = out[1] if convolves else out[-1]
        group = next((one.i for one in node.attribute if one.name == "group"), 1)
        depthwise = convolves and group > 1 and shape[1] == 1
        biases = channels if len(node.input) > 2 and node.op_type in ("Conv", "Gemm", "ConvTranspose") else 0
        return Layer(node.op_type, math.prod(shape), channels, biases, sites * each, depthwise)

    def others(self) -> int:
        """Return the number of constants of other operators, such as BatchNorm, that are not single numbers."""
        prepared, _ = self._prepared
        names = {
            name
            for node in self._nodes
            if node.op_type not in WEIGHT and node.op_type not in VIEWS and node.output[0] not in prepared
            for name in node.input
            if name in self._constant and name in self._floats
        }
        return sum(size for name in names if (size := math.prod(self._shapes[name])) > 1)

    @cached_property
    def _floats(self) -> set[str]:
        return {one.name for one in self._graph.initializer if one.data_type == onnx.TensorProto.FLOAT}

    @cached_property
    def _prepared(self) -> tuple[set[str], int]:
        """Return the tensors up to the network's input, which only prepare the image, and its number of elements."""
        name, names = self._input, {self._input}
        while True:
            readers = [node for node in self._nodes if name in node.input]
            if len(readers) != 1 or readers[0].op_type not in PREPARING or not self._only_dynamic(readers[0], name):
                return names, math.prod(self._shapes[name])
            name = readers[0].output[0]
            names.add(name)

    def _only_dynamic(self, node: onnx.NodeProto, name: str) -> bool:
        return all(other == name or other in self._constant for other in node.input)

    def live(self) -> tuple[list[int], list[str]]:
        """Return the elements alive at each operator, and the kinds of these operators."""
        buffers, steps = self._buffers()
        live = [sum(b.elements for b in buffers if b.first <= step <= b.last) for step, _ in steps]
        return live, [kind for _, kind in steps]

    def _buffers(self) -> tuple[list[_Buffer], list[tuple[int, str]]]:
        """Return the pieces of memory, and the steps that are operators of their own."""
        prepared, elements = self._prepared
        image = _Buffer(elements, first=0, last=0)
        held: dict[str, _Buffer] = dict.fromkeys(prepared, image)
        buffers, steps = [image], []
        for step, node in enumerate(self._nodes):
            dynamic = [name for name in node.input if name in held]
            for name in dynamic:
                held[name].last = step
            if node.output[0] in prepared:
                continue
            shared = held[dynamic[0]] if self._shares(node, dynamic) else None
            if shared is None:
                steps.append((step, node.op_type))
            for name in node.output:
                if name and name not in self._constant:
                    held[name] = shared or _Buffer(math.prod(self._shapes[name]), step, step)
                    buffers += [] if shared else [held[name]]
        for name in self._outputs & held.keys():
            held[name].last = len(self._nodes)
        return buffers, steps

    def _shares(self, node: onnx.NodeProto, dynamic: list[str]) -> bool:
        """Whether the output of a node needs no memory beside that of its only input that is no constant."""
        if node.op_type in VIEWS:
            return True
        if len(dynamic) != 1 or len(self._readers[self._root(dynamic[0])]) != 1:
            return False
        maker = self._makers.get(self._root(dynamic[0]))
        if maker is None:
            return False
        return node.op_type in RECTIFIERS or (node.op_type in SCALING and self._has_weights(maker))

    def _has_weights(self, maker: onnx.NodeProto) -> bool:
        """Whether a tensor comes from a layer with weights, with nothing but scaling in between."""
        while maker.op_type in SCALING:
            dynamic = [name for name in maker.input if name not in self._constant]
            above = self._makers.get(self._root(dynamic[0])) if len(dynamic) == 1 else None
            if above is None:
                return False
            maker = above
        return maker.op_type in WEIGHT

    def _root(self, name: str) -> str:
        """Return the tensor of which this one is a view."""
        while name in self._makers and self._makers[name].op_type in VIEWS:
            name = self._makers[name].input[0]
        return name


def _run(model: onnx.ModelProto, file: Path, image: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors that nodes write."""
    names = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    try:
        results: Any = with_outputs(model, names).run(names, image)
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise ModelError(
            f"{file} cannot be run, so its memory is unknown: {str(error).splitlines()[0][:300]}"
        ) from None
    return {name: np.shape(result) for name, result in zip(names, results, strict=True)}
