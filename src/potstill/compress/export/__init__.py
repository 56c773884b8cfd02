"""Files for devices: a trained classifier as ONNX, its 8-bit copy, and how far a file strays from what was trained."""

from potstill.compress.export.graph import export_onnx
from potstill.compress.export.int8 import quantize_int8
from potstill.compress.export.parity import parity

__all__ = ["export_onnx", "parity", "quantize_int8"]
