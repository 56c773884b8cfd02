"""C source for microcontrollers from the ONNX files of potstill: integer graph, generated code, planned memory."""

from potstill.exporters.c_source.write import check_operators, to_c

__all__ = ["check_operators", "to_c"]
