"""Every tensor of an ONNX graph for one image, by running it.

So shapes, whatever computes them, and constants, however they are packed, are known without a rule for each operator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> ort.InferenceSession:
    """Return a session that also gives the tensors `names`, with no operator fused or removed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    given = {output.name for output in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in given)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


def values_of_a_run(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the input, the initializers and the output of every node by name, for one grey image.

    Initializers of 4 bits are left out: a node of the graph unpacks them.
    """
    names = [name for node in proto.graph.node for name in node.output if name]
    running = with_outputs(proto, names)
    image = running.get_inputs()[0]
    grey = np.full((1, *(int(side) for side in image.shape[1:])), 0.5, np.float32)
    wide = (one for one in proto.graph.initializer if one.data_type != onnx.TensorProto.INT4)
    held = {one.name: numpy_helper.to_array(one) for one in wide}
    outputs = (np.asarray(output) for output in running.run(names, {image.name: grey}))
    return {**held, image.name: grey, **dict(zip(names, outputs, strict=True))}
