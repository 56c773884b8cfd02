"""Files for devices: a trained classifier as ONNX, its small copies, and how far a file strays from the network."""

from potstill.compress.export.graph import export_onnx
from potstill.compress.export.int8 import quantize_int8
from potstill.compress.export.low_bit import export_quantized
from potstill.compress.export.parity import parity

__all__ = ["export_onnx", "export_quantized", "parity", "quantize_int8"]
