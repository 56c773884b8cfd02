"""Export of trained classifiers for devices: ONNX, its int8 and low-bit versions, and parity with the network."""

from potstill.exporters.int8 import export_int8
from potstill.exporters.onnx_float import export_onnx
from potstill.exporters.onnx_int8 import quantize_int8
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.exporters.parity import parity

__all__ = ["export_int8", "export_onnx", "export_quantized", "parity", "quantize_int8"]
