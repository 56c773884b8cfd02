"""The 8-bit copy of an ONNX file: onnxruntime's static quantization with the settings that are fast on x86.

Activations are unsigned and weights signed, because only that pairing reaches the 8-bit instructions of x86
processors (both signed runs slower than float); additions are quantized too, so that residual branches stay in
8 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from potstill.compress.export.file import write
from potstill.compress.export.quiet import quiet
from potstill.compress.export.slim import slim
from potstill.errors import DataError, ModelError
from potstill.models.onnx import session

BATCH = 32


def quantize_int8(
    exported: Path,
    out: Path,
    calibration: np.ndarray | Iterable[np.ndarray],
    *,
    grids: Mapping[str, list[dict[str, Any]]] | None = None,
) -> None:
    """Write the 8-bit copy of a file that `export_onnx` wrote, with the same card, input and output.

    calibration: images float32 [N, C, H, W] in 0..1 at the card's size, or batches of them: the range of every
        activation is from the smallest to the largest value that they cause. Weights have a scale for each output
        channel.
    grids: steps and zero points chosen elsewhere, by tensor (`compress.export.grids`), instead of those ranges.
    The graph quantizes and dequantizes (QDQ) around what runs in 8 bits; what has no 8-bit form stays in float. An
    existing `out` is replaced when the new file is whole. Raises `DataError` for images that do not fit, `ModelError`
    where the graph cannot be quantized or does not run.
    """
    running = session(exported, threads=1)
    given, metadata = running.get_inputs()[0], running.get_modelmeta().custom_metadata_map
    images = _Images(given.name, tuple(given.shape[1:]), calibration)
    with tempfile.TemporaryDirectory(prefix="potstill-int8-") as folder:
        quantized = Path(folder) / "int8.onnx"
        _quantize(exported, quantized, images, grids or {})
        model = _check(exported, quantized, given.name, images.first)
    slim(model)
    write(model, out, metadata)


def _quantize(exported: Path, quantized: Path, images: _Images, grids: Mapping[str, Any]) -> None:
    try:
        with quiet():
            quantize_static(
                exported,
                quantized,
                images,
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options={"TensorQuantOverrides": dict(grids)} if grids else None,
            )
    except DataError:
        raise
    except Exception as error:  # onnxruntime raises what it likes for a graph that it cannot quantize
        raise ModelError(_refused(exported, error)) from error


def _check(exported: Path, quantized: Path, name: str, image: np.ndarray) -> onnx.ModelProto:
    """Return the quantized model once it has run and has something in 8 bits."""
    try:
        said = session(quantized, threads=1).run(None, {name: image})[0]
    except Exception as error:
        raise ModelError(_refused(exported, error)) from error
    if not np.isfinite(said).all():
        raise ModelError(_refused(exported, "its answers are not finite"))
    model = onnx.load(quantized)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelError(_refused(exported, "nothing in it has an 8-bit form"))
    return model


def _refused(file: Path, reason: object) -> str:
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return f"{file} does not run in 8 bits: {first[:300]}. Keep the float file (int8 off), or choose another student."


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
