"""Removal of unneeded parts of ONNX graphs: passes of onnx-ir, and three that it does not have.

Exporters leave names, traces and shapes in the graph. Quantization tools give every tensor a long name, every scale its
own zero point and every layer a vector of zeros: a twelfth of the int8 file of a small network. No runtime needs them,
and the outputs of the graph stay bit-identical.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

ZERO_BY_DEFAULT = (ir.DataType.INT8, ir.DataType.INT32)
LARGEST_SHARED = 2**31  # elements up to which constants are compared; an ONNX file has fewer


class AnonymousPass(InPlacePass):
    """Removes the names of nodes, and types, shapes and documentation of the tensors between them."""

    def call(self, model: ir.Model) -> PassResult:
        """Clear the main graph."""
        graph = model.graph
        inner = [value for node in graph for value in node.outputs]
        for node in graph:
            node.name = None
        for value in {*graph.initializers.values(), *inner} - {*graph.inputs, *graph.outputs}:
            value.type = value.shape = None  # an initializer has its own, with its values
        for value in [*graph.inputs, *graph.outputs, *graph.initializers.values()]:
            value.doc_string = None
            value.metadata_props.clear()
        return PassResult(model, modified=True)


class DefaultZeroPointPass(InPlacePass):
    """Removes zero points of DequantizeLinear that are zero."""

    def call(self, model: ir.Model) -> PassResult:
        """Remove the third input of the nodes."""
        modified = False
        for node in model.graph:
            if node.op_type == "DequantizeLinear" and len(node.inputs) == 3 and _is_zero(node.inputs[2]):
                node.resize_inputs(2)
                modified = True
        return PassResult(model, modified=modified)


class ShortNamesPass(InPlacePass):
    """Renames the tensors to a, b, ..., aa, ab, ...; inputs and outputs of the graph keep their names."""

    def call(self, model: ir.Model) -> PassResult:
        """Name initializers first, then the outputs of nodes in their order."""
        graph = model.graph
        kept = {*graph.inputs, *graph.outputs}
        outputs = (value for node in graph for value in node.outputs if value.name)
        values = [value for value in dict.fromkeys([*graph.initializers.values(), *outputs]) if value not in kept]
        for number, value in enumerate(values):
            value.name = f"/{number}"  # frees all short names before they are assigned
        reserved = {value.name for value in kept}
        names = (name for name in _names() if name not in reserved)
        for value in values:
            value.name = next(names)
        return PassResult(model, modified=bool(values))


def strip(model: ir.Model) -> None:
    """Remove node names, traces, documentation, shapes of inner tensors, dead nodes and unused opsets, in place."""
    passes = ClearMetadataAndDocStringPass(), RemoveUnusedNodesPass(), RemoveUnusedOpsetsPass(), AnonymousPass()
    Sequential(*passes)(model)
    model.doc_string = None


def slim(model: ir.Model) -> None:
    """Deduplicate constants, remove zero points that are zero, and shorten tensor names, in place."""
    shared = DeduplicateInitializersPass(size_limit=LARGEST_SHARED)
    Sequential(DefaultZeroPointPass(), shared, RemoveUnusedNodesPass(), ShortNamesPass())(model)


def _is_zero(value: ir.Value | None) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.dtype in ZERO_BY_DEFAULT and not constant.numpy().any()


def _names() -> Iterator[str]:
    """Yield a, b, ..., aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))
