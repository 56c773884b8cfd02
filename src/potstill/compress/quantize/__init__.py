"""Quantization to 2-8 bits: from a float model to a quantization-aware model and its packed file.

Order of use: `fold_batchnorm`, `equalize` (optional), `observe`, `quantized`, `correct_bias` or `reconstruct`
(optional), training (optional), `pack`.
"""

from potstill.compress.quantize.bias import correct_bias
from potstill.compress.quantize.convert import quantized, restored
from potstill.compress.quantize.equalize import equalize
from potstill.compress.quantize.fake import QuantConv2d, QuantLinear, StepQuantizer, quantized_layers
from potstill.compress.quantize.fold import fold_batchnorm
from potstill.compress.quantize.mixed import allocate, sensitivity
from potstill.compress.quantize.observe import Histogram, observe
from potstill.compress.quantize.pack import float_state, pack, packed_bytes, unpack
from potstill.compress.quantize.reconstruct import Reconstruction, reconstruct
from potstill.compress.quantize.simulate import plain, simulated

__all__ = [
    "Histogram",
    "QuantConv2d",
    "QuantLinear",
    "Reconstruction",
    "StepQuantizer",
    "allocate",
    "correct_bias",
    "equalize",
    "float_state",
    "fold_batchnorm",
    "observe",
    "pack",
    "packed_bytes",
    "plain",
    "quantized",
    "quantized_layers",
    "reconstruct",
    "restored",
    "sensitivity",
    "simulated",
    "unpack",
]
