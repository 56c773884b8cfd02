"""Tiny ONNX graphs written by hand: image -> a layer that copies pixels to 8 channels -> operators -> logits.

In 8 bits the first layer is exact: its numbers are multiples of the step of its output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from potstill.exporters.onnx_file import metadata_of
from potstill.models.card import Card

SIDE, CHANNELS, GAIN, ZERO = 8, 8, 8, 100
"""Pixels 0..255 become the numbers (pixel - ZERO) * GAIN / 255: from -3.1 to 4.9."""

Step = tuple[str, dict[str, Any], list[np.ndarray]]


def step(kind: str, *constants: Any, **attributes: Any) -> Step:
    """Return an operator with constant inputs behind the tensor before; `twice`: with that tensor as second input."""
    return kind, attributes, [np.asarray(one) for one in constants]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write(file: Path, *steps: Step, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Write a graph of the steps; its classes are all numbers of the last tensor."""
    copies = np.zeros((CHANNELS, 3, 1, 1), np.float32)
    copies[np.arange(CHANNELS), np.arange(CHANNELS) % 3] = GAIN
    shift = np.full(CHANNELS, -ZERO * GAIN / 255, np.float32)
    nodes, held, value = [], [], "image"
    for number, (kind, attributes, constants) in enumerate([step("Conv", copies, shift), *steps, step("Flatten")]):
        names = [f"c{number}.{place}" for place in range(len(constants))]
        held += [numpy_helper.from_array(one, name) for one, name in zip(constants, names, strict=True)]
        twice = [value] if attributes.pop("twice", False) else []
        inputs = [*names, value] if attributes.pop("last", False) else [value, *twice, *names]
        nodes.append(helper.make_node(kind, inputs, [value := f"t{number}"], name=f"n{number}", **attributes))
    nodes[-1].output[0] = "logits"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", None])
    graph = helper.make_graph(nodes, "g", [image], [logits], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    shape = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0].type.tensor_type.shape
    classes = tuple(f"c{number}" for number in range(shape.dim[1].dim_value))
    card = Card("test:graph", classes, 3, size, (0.0,) * 3, (1.0,) * 3, resize=max(size), crop=size)
    helper.set_model_props(model, metadata_of(card, 2.0))
    onnx.save(model, file)
    return file


def pixels(count: int, size: tuple[int, int] = (SIDE, SIDE), seed: int = 1) -> np.ndarray:
    """Return images in 0..1 of whole pixels, with the darkest and the brightest among them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, *size))
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 255
    return (images / 255).astype(np.float32)
