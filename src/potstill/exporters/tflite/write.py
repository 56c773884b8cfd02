"""From an ONNX file of potstill to a .tflite file: the steps in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from potstill import artifacts
from potstill._version import __version__
from potstill.exporters.tflite.emit import emit
from potstill.exporters.tflite.graph import Graph, Node, Value
from potstill.exporters.tflite.lower import lower
from potstill.exporters.tflite.ranges import assign_grids
from potstill.exporters.tflite.read_onnx import QUANTIZE, read
from potstill.exporters.tflite.simplify import simplify
from potstill.model_files.onnx import session
from potstill.model_files.onnx_input import CARD, TEMPERATURE
from potstill.model_files.runtimes import PROBABILITIES, require
from potstill.models.card_record import card_from_text

BATCH = 8
LABELS = "labels.txt"


def to_tflite(
    exported: Path,
    out: Path,
    calibration: np.ndarray,
    *,
    outside: str = "uint8",
    probabilities: bool = False,
) -> Path:
    """Write `out` (.tflite) with the numbers of an ONNX file of potstill, and labels.txt beside it; return `out`.

    The input is `image` [1, H, W, C], the output `logits` [1, K]. A float file gives a float file, with values in 0..1.
    An 8-bit file gives one in integers: weights and grids are those of the ONNX file.

    calibration: images float32 [N, C, H, W] in 0..1, for grids of the tensors that the ONNX file keeps in float, the
        logits among them. outside: type of image and logits in an 8-bit file: uint8 (pixels as they are) or int8
        (pixels minus 128). probabilities: whether the output is a softmax, with the temperature of the ONNX file.
    Raises `ModelError` if the extra `tflite` is not installed, or names all operators that are not supported.
    """
    require("tflite")
    metadata = session(exported, threads=1).get_modelmeta().custom_metadata_map
    card = card_from_text(metadata[CARD], origin=f"The card inside {exported}")
    graph = _simplified(exported)
    if probabilities:
        _append_softmax(graph, float(metadata.get(TEMPERATURE, 1.0)))
        metadata[PROBABILITIES] = "softmax"
    integer = _is_quantized(exported)
    if integer:
        assign_grids(graph, exported, _batches(calibration))
    lowered = lower(graph, integer=integer, name=card.model, outside=np.dtype(outside))
    description = f"{card.model}, written by potstill {__version__}"
    with artifacts.atomic(out) as temporary:
        temporary.write_bytes(emit(lowered, metadata=metadata, description=description))
    artifacts.write_text(out.parent / LABELS, "".join(f"{name}\n" for name in card.classes))
    return out


def check_operators(exported: Path, name: str) -> None:
    """Raise `ModelError` that names all operators of a float ONNX file that are not supported; write nothing."""
    lower(_simplified(exported), integer=False, name=name)


def _simplified(file: Path) -> Graph:
    graph = read(file)
    simplify(graph)
    return graph


def _append_softmax(graph: Graph, temperature: float) -> None:
    output = Value("probabilities", graph.logits.shape)
    graph.nodes.append(Node("Softmax", [graph.logits], output, {"beta": 1 / temperature}))
    graph.logits = output


def _is_quantized(file: Path) -> bool:
    return any(node.op_type == QUANTIZE for node in onnx.load(file).graph.node)


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))
