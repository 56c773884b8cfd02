"""The graph that C is generated from: one image, known shapes, and 8-bit operators where the file has them.

An 8-bit ONNX file holds float operators between QuantizeLinear and DequantizeLinear; read literally, they compute in
float and need a float copy of every weight. onnxruntime replaces them by integer operators when it loads the file, and
writes the graph that it runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper

from potstill.exporters.onnx_file import read_prepared
from potstill.exporters.onnx_slim import slim, strip
from potstill.model_files.onnx_values import values_of_a_run

DOMAINS = ("", "com.microsoft")


def integer_graph(file: Path) -> onnx.ModelProto:
    """Return the graph of an ONNX file of potstill for one image, with the shapes of all tensors."""
    model = read_prepared(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        model = _as_onnxruntime_runs_it(model)
    short = ir.from_proto(model)  # onnxruntime names zero points by chance
    strip(short)
    slim(short)
    model = ir.to_proto(short)
    model.ClearField("metadata_props")  # class names are text from the data, and must not get into comments
    _with_shapes(model)
    return model


def _as_onnxruntime_runs_it(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="potstill-c-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        # The next level rearranges tensors for this processor.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        model = onnx.load(optimized)
    known = [one for one in model.opset_import if one.domain in DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(known)
    return model


def _with_shapes(model: onnx.ModelProto) -> None:
    """Write the type and the shape of every tensor into the graph, since there is no inference for all operators."""
    values = values_of_a_run(model)
    del model.graph.value_info[:]
    ends = {output.name for output in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output if name and name not in ends):
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(values[name]).dtype)
        model.graph.value_info.append(helper.make_tensor_value_info(name, kind, values[name].shape))
