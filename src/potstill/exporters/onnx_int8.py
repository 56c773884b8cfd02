"""The int8 copy of an ONNX file: onnxruntime's static quantization with settings that are fast on x86.

Activations are unsigned and weights signed, because only this combination uses the 8-bit instructions of x86
processors (both signed is slower than float); additions are quantized too, so that residual branches stay in 8 bits.
In transformers the sums, LayerNorm, softmax and products of two activations stay in float: they have outliers far
larger than all other values, so 256 levels are too coarse for the rest.
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
from potstill.exporters.onnx_file import read_prepared, write
from potstill.exporters.onnx_slim import slim
from potstill.exporters.quiet import quiet
from potstill.model_files.onnx import session
from potstill.model_files.onnx_input import form_of

BATCH = 32
WEIGHTED = ["Conv", "Gemm", "MatMul"]
NORMALISES_TOKENS = "LayerNormalization"


def quantize_int8(exported: Path, out: Path, calibration: np.ndarray | Iterable[np.ndarray]) -> None:
    """Write the int8 copy of a file written by `export_onnx`, with the same card, input and output.

    The preprocessing of a raw file stays in float.

    calibration: images float32 [N, C, H, W] in 0..1 at the card's size, or batches of them: the range of every
        activation is from its smallest to its largest value for them. Weights have one scale per output channel.
    The graph has quantize and dequantize nodes (QDQ) around 8-bit operators; operators without 8-bit version stay in
    float. An existing `out` is replaced atomically. Raises `DataError` for images that do not fit, `ModelError` if the
    graph cannot be quantized or does not run.
    """
    proto, metadata = quantized(exported, calibration, name=str(exported))
    model = ir.from_proto(proto)
    slim(model)
    write(model, out, metadata, input=form_of(onnx.load(exported)))


def quantized(
    exported: Path, calibration: np.ndarray | Iterable[np.ndarray], *, name: str, **options: Any
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the model that `quantize_int8` writes, before slimming, and its metadata.

    name: of the model in error messages. options: additional options of onnxruntime's `quantize_static`.
    """
    plain = read_prepared(exported)
    running = session(exported, threads=1, graph=plain)
    image, metadata = running.get_inputs()[0], running.get_modelmeta().custom_metadata_map
    images = _Images(image.name, tuple(image.shape[1:]), calibration)
    with tempfile.TemporaryDirectory(prefix="potstill-int8-") as folder:
        file = Path(folder) / "int8.onnx"
        try:
            _quantize(plain, file, images, options)
            model = _checked(file, {image.name: images.first})
        except DataError:
            raise
        except Exception as error:  # onnxruntime raises various classes for graphs that it cannot quantize or run
            raise ModelError(_refused(name, error)) from error
    _logits_in_float(model.graph)
    return model, metadata


def _quantize(model: onnx.ModelProto, out: Path, images: _Images, options: dict[str, Any]) -> None:
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
    """Return options that quantize only layers with weights, and their inputs; nodes without a name get one.

    excluded: names of nodes that stay in float.
    """
    for number, node in enumerate(graph.node):
        node.name = node.name or f"unnamed{number}"
    held = {initializer.name for initializer in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and not held & set(node.input)]
    return {"op_types_to_quantize": WEIGHTED, "nodes_to_exclude": [*excluded, *products]}


def _checked(file: Path, image: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return the quantized model after checking that it runs and has 8-bit operators."""
    logits = np.asarray(session(file, threads=1).run(None, image)[0])
    if not np.isfinite(logits).all():
        raise ValueError("its outputs are not finite")
    model = onnx.load(file)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ValueError("it has no operator with an 8-bit version")
    return model


def _logits_in_float(graph: onnx.GraphProto) -> None:
    """Keep the logits in float: with 256 levels two classes may tie, and large logits would be clipped."""
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
    return f"{name} cannot be quantized to int8: {first[:300]}. Use the float file (int8 off), or another student."


class _Images(CalibrationDataReader):
    """Passes calibration images to onnxruntime in batches; raises `DataError` for images that do not fit."""

    def __init__(self, name: str, shape: tuple[int, ...], calibration: np.ndarray | Iterable[np.ndarray]) -> None:
        self._name, self._shape = name, shape
        self._batches = _batches(calibration)
        first = next(self._batches, None)
        if first is None:
            raise DataError(
                "There are no images for calibration. int8 export needs a few hundred training images: give a data "
                "set, or increase export.calibration."
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
                f"The model takes images of {_sides(self._shape)} (channels, height, width), but the calibration "
                f"images are {_sides(batch.shape[1:])}. Resize them to the size on the model's card."
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
