"""The 8-bit copy of an ONNX file: onnxruntime's static quantization with the settings that are fast on x86.

Activations are unsigned and weights signed, because only that pairing reaches the 8-bit instructions of x86
processors (both signed runs slower than float); additions are quantized too, so that residual branches stay in
8 bits.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from potstill.compress.export import file as onnx_file
from potstill.compress.export.quiet import quiet
from potstill.errors import DataError, ModelError
from potstill.models.onnx import session

BATCH = 32


def quantize_int8(onnx_file_: Path, out_file: Path, calibration: np.ndarray | Iterable[np.ndarray]) -> None:
    """Write the 8-bit copy of an exported file, with the same card, input and output.

    calibration: images float32 [N, C, H, W] in 0..1 at the card's size, or batches of them; the range of every
    activation is the smallest and largest value they cause. 8-bit weights have a scale for each output channel.
    Raises `DataError` for images that do not fit, `ModelError` where the graph does not run in 8 bits.
    """
