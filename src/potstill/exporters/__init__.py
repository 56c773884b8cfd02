"""Files for devices: a trained classifier as ONNX, its small copies, and how far a file strays from the network."""

from potstill.exporters.onnx_float import export_onnx
from potstill.exporters.onnx_int8 import quantize_int8
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.exporters.parity import parity

__all__ = ["export_onnx", "export_quantized", "parity", "quantize_int8"]
