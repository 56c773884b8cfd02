"""Steps and biases of a quantized ONNX graph in float16, stored together.

Quantization tools store, for each output channel, a step of the weights, an int32 bias and a step of the bias, which is
the product of two other steps: 12 bytes, as many as 24 weights of 4 bits. Here a bias stays a float constant, which
onnxruntime quantizes when it loads the file (its `WeightBiasQuantization`), and bias and step are float16: 4 bytes.
float16 rounds by at most 1 in 2,048; the step between two activations of 8 bits is coarser.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LARGEST, SMALLEST = 65504.0, 2.0**-14
"""Magnitudes that float16 has with full precision."""
FEWEST = 4  # elements from which a constant is worth a slice of the shared one


def halve(graph: onnx.GraphProto) -> None:
    """Store the one-dimensional float constants of a graph, which are steps and biases, in float16, in place."""
    chosen = [one for one in graph.initializer if _worth(one)]
    if not chosen:
        return
    values = [numpy_helper.to_array(one) for one in chosen]
    names = [one.name for one in chosen]
    for one in chosen:
        graph.initializer.remove(one)
    graph.initializer.append(numpy_helper.from_array(np.concatenate(values).astype(np.float16), "halves"))
    graph.initializer.append(numpy_helper.from_array(np.array([len(one) for one in values]), "halves/sizes"))
    _first(
        graph,
        helper.make_node("Cast", ["halves"], ["halves/float"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["halves/float", "halves/sizes"], names, axis=0),
    )


def rounded(step: np.ndarray) -> np.ndarray:
    """Return steps float32 as float16 has them, at least `SMALLEST`."""
    return np.maximum(step, SMALLEST).astype(np.float16).astype(np.float32)


def _worth(one: TensorProto) -> bool:
    if one.data_type != TensorProto.FLOAT or len(one.dims) != 1 or one.dims[0] < FEWEST:
        return False
    return bool((np.abs(numpy_helper.to_array(one)) <= LARGEST).all())


def _first(graph: onnx.GraphProto, *nodes: NodeProto) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
