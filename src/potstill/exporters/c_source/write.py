"""From an ONNX file of potstill to C source and header."""

from __future__ import annotations

from pathlib import Path

import onnx

from potstill import artifacts
from potstill.errors import ModelError
from potstill.exporters.c_source.header import header
from potstill.exporters.c_source.integer_graph import integer_graph
from potstill.exporters.c_source.source import planned
from potstill.model_files.onnx import session, temperature_in
from potstill.model_files.onnx_input import CARD
from potstill.model_files.runtimes import require
from potstill.models.card_record import card_from_text


def to_c(exported: Path, out: Path) -> int:
    """Write `out` (.c) and its header with the numbers of an ONNX file of potstill; return the bytes of its memory.

    The functions are named after the file. Standard C99, with the mathematics library; no allocation, no other file.
    Raises `ModelError` if the extra `c` is not installed, or does not support the network.
    """
    require("c")
    metadata = session(exported, threads=1).get_modelmeta().custom_metadata_map
    card = card_from_text(metadata[CARD], origin=f"The card inside {exported}")
    graph = integer_graph(exported)
    text, arena = planned(_generated(graph, out.stem, card.model), out.stem)
    temperature = temperature_in(metadata, exported)
    integer = any(node.op_type == "QLinearConv" for node in graph.graph.node)
    artifacts.write_text(out.with_suffix(".h"), header(out.stem, card, arena, integer=integer, temperature=temperature))
    artifacts.write_text(out, text)
    return arena


def check_operators(exported: Path, name: str) -> None:
    """Raise `ModelError` that names the operators of an ONNX file that cannot be written as C; write nothing."""
    from emx_onnx_cgen.lowering import load_lowering_registry  # optional
    from emx_onnx_cgen.lowering.registry import get_lowering_registry

    load_lowering_registry()
    kinds = {node.op_type for node in integer_graph(exported).graph.node}
    missing = sorted(kinds - get_lowering_registry().keys())
    if missing:
        raise ModelError(_refused(name, ", ".join(missing)))


def _generated(graph: onnx.ModelProto, function: str, model: str) -> str:
    from emx_onnx_cgen.compiler import Compiler, CompilerOptions  # optional
    from emx_onnx_cgen.errors import CompilerError

    # All weights in the file itself, and all tensors allocated, so that `planned` finds them.
    options = CompilerOptions(model_name=function, large_weight_threshold=0, large_temp_threshold_bytes=1)
    try:
        return Compiler(options).compile(graph)
    except CompilerError as error:
        raise ModelError(_refused(model, str(error).splitlines()[0][:300])) from error


def _refused(name: str, reason: str) -> str:
    return f"{name} cannot be written as C by emx-onnx-cgen: {reason}. Use ONNX or TensorFlow Lite, or another student."
