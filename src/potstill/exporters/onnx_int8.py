"""The 8-bit copy of an ONNX file: onnxruntime's static quantization with the settings that are fast on x86.

Activations are unsigned and weights signed, because only that pairing reaches the 8-bit instructions of x86
processors (both signed runs slower than float); additions are quantized too, so that residual branches stay in
8 bits. In networks of attention the sums, LayerNorm, softmax and the products of two activations stay in float: a few
of their values are far larger than all others, and 256 levels between them leave nothing of the rest.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from potstill.errors import DataError, ModelError
from potstill.exporters.onnx_file import write
from potstill.exporters.onnx_slim import slim
from potstill.exporters.quiet import quiet
from potstill.model_files.onnx import session

BATCH = 32
WEIGHTED = ["Conv", "Gemm", "MatMul"]
NORMALISES_TOKENS = "LayerNormalization"


def quantize_int8(exported: Path, out: Path, calibration: np.ndarray | Iterable[np.ndarray]) -> None:
    """Write the 8-bit copy of a file that `export_onnx` wrote, with the same card, input and output.

    calibration: images float32 [N, C, H, W] in 0..1 at the card's size, or batches of them: the range of every
        activation is from the smallest to the largest value that they cause. Weights have a scale for each output
        channel.
    The graph quantizes and dequantizes (QDQ) around what runs in 8 bits; what has no 8-bit form stays in float. An
    existing `out` is replaced when the new file is whole. Raises `DataError` for images that do not fit, `ModelError`
    where the graph cannot be quantized or does not run.
    """
    proto, metadata = quantized(exported, calibration, name=str(exported))
    model = ir.from_proto(proto)
    slim(model)
    write(model, out, metadata)


def quantized(
    exported: Path, calibration: np.ndarray | Iterable[np.ndarray], *, name: str, **options: Any
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return what `quantize_int8` writes, before slimming, and its metadata.

    name: what the sentences of errors call the model. options: more of onnxruntime's `quantize_static`.
    """
    running = session(exported, threads=1)
    given, metadata = running.get_inputs()[0], running.get_modelmeta().custom_metadata_map
    images = _Images(given.name, tuple(given.shape[1:]), calibration)
    with tempfile.TemporaryDirectory(prefix="potstill-int8-") as folder:
        file = Path(folder) / "int8.onnx"
        try:
            _quantize(exported, file, images, options)
            model = _checked(file, {given.name: images.first})
        except DataError:
            raise
        except Exception as error:  # onnxruntime raises what it likes for a graph that it cannot quantize or run
            raise ModelError(_refused(name, error)) from error
    _answer_in_float(model.graph)
    return model, metadata


def _quantize(exported: Path, out: Path, images: _Images, options: dict[str, Any]) -> None:
    model = onnx.load(exported)
    if any(node.op_type == NORMALISES_TOKENS for node in model.graph.node):
        options = {**options, **_weighted_only(model.graph, options.get("nodes_to_exclude", ()))}
    with quiet():
        quantize_static(
            model,
            out,
            images,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            **options,
        )


def _weighted_only(graph: onnx.GraphProto, excluded: Sequence[str]) -> dict[str, Any]:
    """Return the options with which only layers with weights, and their inputs, get 8 bits; nodes without name get one.

    excluded: names of nodes that stay in float anyway.
    """
    for number, node in enumerate(graph.node):
        node.name = node.name or f"unnamed{number}"
    held = {initializer.name for initializer in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and not held & set(node.input)]
    return {"op_types_to_quantize": WEIGHTED, "nodes_to_exclude": [*excluded, *products]}


def _checked(file: Path, image: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the quantized model once it has run and has something in 8 bits."""
    said = session(file, threads=1).run(None, image)[0]
    if not np.isfinite(said).all():
        raise ValueError("its answers are not finite")
    model = onnx.load(file)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ValueError("nothing in it has an 8-bit form")
    return model


def _answer_in_float(graph: onnx.GraphProto) -> None:
    """Leave the logits as they come: on 256 levels two classes may tie, and sure answers would be cut off."""
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for value in graph.output:
        back = makers[value.name]
        forth = makers.get(back.input[0])
        if back.op_type != "DequantizeLinear" or forth is None or forth.op_type != "QuantizeLinear":
            continue
        if forth.input[0] in makers and readers[forth.input[0]] == 1:
            makers[forth.input[0]].output[0] = value.name
            graph.node.remove(back)
            graph.node.remove(forth)


def _refused(name: str, reason: Exception) -> str:
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return f"{name} does not run in 8 bits: {first[:300]}. Keep the float file (int8 off), or choose another student."


class _Images(CalibrationDataReader):
    """Hands calibration images to onnxruntime in batches; refuses those that the model does not take."""

    def __init__(self, name: str, shape: tuple[int, ...], calibration: np.ndarray | Iterable[np.ndarray]) -> None:
        self._name, self._shape = name, shape
        self._batches = _batches(calibration)
        first = next(self._batches, None)
        if first is None:
            raise DataError(
                "There is no image to calibrate with. 8-bit export needs a few hundred training images: give a data "
                "set, or raise export.calibration."
            )
        self._waiting: np.ndarray | None = self._checked(first)
        self.first = first[:1]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by input name, None at the end."""
        batch, following = self._waiting, next(self._batches, None)
        self._waiting = None if following is None else self._checked(following)
        return None if batch is None else {self._name: batch}

    def _checked(self, batch: np.ndarray) -> np.ndarray:
        if batch.shape[1:] != self._shape:
            raise DataError(
                f"The model takes images {_sides(self._shape)} (channels, height, width) and the calibration images "
                f"are {_sides(batch.shape[1:])}. Resize them to the size on the model's card."
            )
        if batch.dtype != np.float32 or batch.min() < 0 or batch.max() > 1:
            raise DataError(
                f"Calibration images must be float32 in 0..1; these are {batch.dtype} from {batch.min():g} to "
                f"{batch.max():g}. Divide 8-bit pixels by 255 and leave the normalisation to the model."
            )
        return batch


def _batches(calibration: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for part in [calibration] if isinstance(calibration, np.ndarray) else calibration:
        for start in range(0, len(part), BATCH):
            yield part[start : start + BATCH]


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
