"""TensorFlow Lite (LiteRT) files from the ONNX files of potstill: read, simplify, lower, emit; one file a step.

The numbers are those of the ONNX file: weights, scales and zero points. There is no second quantization.
"""

from potstill.exporters.tflite.write import check_operators, to_tflite

__all__ = ["check_operators", "to_tflite"]
