"""The 8-bit file of a network, beside its float file.

Networks with depthwise convolutions lose several points in 8 bits where the mean outputs of channels shift: such a
convolution adds up few products, so errors of rounding do not cancel. They are quantized here, with corrected biases
(`compress.quantize.correct_bias`), and then written. The others lose nothing by onnxruntime's quantization.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from potstill.compress.quantize import correct_bias, fold_batchnorm, observe, quantized
from potstill.exporters.onnx_int8 import quantize_int8
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import form_of
from potstill.models.inspect.plain_layers import has_depthwise, other_layers
from potstill.models.outputs import Classifier, bare

AT_ONCE, CORRECTED = 64, 256
"""Calibration images in a batch; those of which biases are corrected."""


def export_int8(classifier: Classifier, exported: Path, out: Path, images: np.ndarray) -> None:
    """Write the 8-bit copy of `exported`, the float file of `classifier`, with the same card, input and temperature.

    images: for calibration, float32 [N, C, H, W] in 0..1 at the card's size. Biases are corrected in networks with
    depthwise convolutions, if all of their BatchNorm can be folded. Raises as `quantize_int8`.
    """
    model = _corrected(classifier, images) if len(images) else None
    if model is None:
        quantize_int8(exported, out, images)
    else:
        options = {"input": form_of(onnx.load(exported)), "temperature": OnnxModel(exported, threads=1).temperature}
        export_quantized(model, out, images, **options)


def _corrected(classifier: Classifier, images: np.ndarray) -> Classifier | None:
    """Return the network in 8 bits with corrected biases; None where it has no depthwise layers or cannot be folded."""
    if not has_depthwise(bare(classifier.network)):
        return None
    calibration = classifier.prepare(torch.from_numpy(images))
    floating = fold_batchnorm(bare(classifier.network), calibration[:2])
    if other_layers(floating) or any(isinstance(module, _BatchNorm) for module in floating.modules()):
        return None
    network = quantized(floating, observe(floating, calibration.split(AT_ONCE)))
    return Classifier(correct_bias(network, floating, calibration[:CORRECTED]), classifier.card).eval()
