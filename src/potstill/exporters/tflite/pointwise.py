"""Rules for activations, and for sums and products of two tensors."""

from __future__ import annotations

import numpy as np

from potstill.exporters.tflite.graph import Node
from potstill.exporters.tflite.layers import affine
from potstill.exporters.tflite.lowering import FLOAT, Lowering, Rule, Unsupported, activation, constant
from potstill.exporters.tflite.operators import Tensor


def function(code: str) -> Rule:
    """Return the rule of a function of one tensor with its own grid for the result."""

    def rule(lowering: Lowering, node: Node) -> None:
        x = lowering.tensor(node.x)
        lowering.add(code, [x], lowering.output(node.output))

    return rule


def pair(code: str) -> Rule:
    """Return the rule of a function of two tensors; one of them may be constant."""

    def rule(lowering: Lowering, node: Node) -> None:
        inputs = [_operand(lowering, node, position) for position in range(2)]
        lowering.add(code, inputs, lowering.output(node.output), **activation(node))

    return rule


def _operand(lowering: Lowering, node: Node, position: int) -> Tensor:
    value = node.inputs[position]
    assert value is not None, "both operands exist"
    if len(value.shape) not in (0, len(node.output.shape)):
        raise Unsupported(f"{node.kind} of tensors with {len(value.shape)} and {len(node.output.shape)} axes")
    return lowering.tensor(value)


def hard_sigmoid(lowering: Lowering, node: Node) -> None:
    """clip(alpha * x + beta, 0, 1); in int8 the grid of the result ends at 0 and 1."""
    alpha, beta = node.options.get("alpha", 0.2), node.options.get("beta", 0.5)
    if lowering.integer:
        channels = node.x.shape[1]
        scale, offset = np.full(channels, float(alpha)), np.full(channels, float(beta))
        affine(lowering, Node("Affine", node.inputs, node.output, {"scale": scale, "offset": offset}))
        return
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        raise Unsupported(f"HardSigmoid with alpha {alpha:g} and beta {beta:g} instead of 1/6 and 0.5")
    x, result = lowering.tensor(node.x), lowering.output(node.output)
    moved = lowering.like(f"{result.name}/relu6", result.shape, None)
    three, sixth = np.array(3, FLOAT), np.array(1 / 6, FLOAT)
    lowering.add("ADD", [x, constant("three", three)], moved, FusedActivationFunction=3)
    lowering.add("MUL", [moved, constant("sixth", sixth)], result)


def softmax(lowering: Lowering, node: Node) -> None:
    """Softmax over the classes; `beta` is the inverse of a temperature."""
    if node.options.get("axis", -1) % len(node.x.shape) != len(node.x.shape) - 1 or node.x.is_map:
        raise Unsupported("Softmax over another axis than the last of vectors")
    x = lowering.tensor(node.x)
    lowering.add("SOFTMAX", [x], lowering.output(node.output), Beta=float(node.options.get("beta", 1.0)))
