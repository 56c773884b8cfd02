"""What a graph from elsewhere computes: which output has the classes, and whether it is logits or probabilities.

A softmax that is applied twice is silent and costs accuracy, and its operator may stand before a reshape or be taken
apart into exponentials. So an output is judged by the values it gives for a few images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from potstill.errors import ModelError
from potstill.progress import note

FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_PROBABILITIES = ("Softmax", "Sigmoid", "ZipMap", "TreeEnsembleClassifier", "LinearClassifier", "Normalizer")
_SHAPED = (  # operators that leave probabilities what they are
    *("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Flatten", "Reshape"),
    *("Squeeze", "Unsqueeze", "Transpose", "Clip", "Dropout"),
)
_SUM = 5e-3  # from 1, of the probabilities of an image; half precision is off by one thousandth


def shown(shape: Sequence[Any]) -> str:
    """Return a shape for messages: "[any, 3, 8, 8]"."""
    return "[" + ", ".join("any" if not isinstance(side, int) else str(side) for side in shape) + "]"


def choose(file: Path, outputs: Sequence[Any], classes: int) -> Any:
    """Return the output with one value per class, or with one value if there are two classes.

    Sides of 1 after the first are ignored: [B, K, 1, 1]. Raises `ModelError` if there is none.
    """
    floats = [one for one in outputs if one.type in FLOATS and len(one.shape) >= 2]
    widths = {one.name: [side for side in one.shape[1:] if side != 1] for one in floats}
    fitting = [one for one in floats if widths[one.name] in ([classes], [None])]
    fitting += [one for one in floats if len(widths[one.name]) == 1 and isinstance(widths[one.name][0], str)]
    fitting += [one for one in floats if not widths[one.name] and classes == 2]
    if not fitting:
        shapes = ", ".join(f"{one.name} {shown(one.shape)}" for one in outputs)
        raise ModelError(
            f"{file} has no output with one value for each of {classes} classes; it has {shapes}. List all classes of "
            "the model (and, for scikit-learn, export with zipmap=False)."
        )
    if len(fitting) > 1:
        others = ", ".join(one.name for one in fitting[1:])
        note(f"{file} has several outputs with one value per class; '{fitting[0].name}' is used, not {others}.")
    return fitting[0]


def is_probabilities(file: Path, name: str, values: np.ndarray) -> bool:
    """Return whether an output is probabilities, by its values for some images and by the operator that makes it.

    values: float [B, K]. One value, or several that do not sum to 1, are probabilities only if a sigmoid makes them.
    """
    inside = bool((values >= -1e-6).all() and (values <= 1 + 1e-3).all())
    if values.shape[1] > 1 and inside and np.abs(values.sum(1) - 1).max() <= _SUM:
        return True
    return inside and _made_by(file, name) in _PROBABILITIES


def _made_by(file: Path, name: str) -> str:
    """Return the operator that computes an output, seen through those that only change its shape or type."""
    graph = onnx.load(file, load_external_data=False).graph
    makers = {output: node for node in graph.node for output in node.output}
    seen: set[str] = set()
    while name in makers and makers[name].op_type in _SHAPED and name not in seen and makers[name].input:
        seen.add(name)
        name = makers[name].input[0]
    return makers[name].op_type if name in makers else ""


def refuse_useless(file: Path, values: np.ndarray) -> None:
    """Raise `ModelError` if the outputs [B, K] for different images are not finite, or all the same."""
    if not np.isfinite(values).all():
        raise ModelError(
            f"{file} computes NaN or infinity for ordinary images: its weights are not finite, or its card does not "
            "fit (mean and std of images in 0..1). Export the model again, or correct the card."
        )
    if len(values) > 1 and values.size and (values == values[:1]).all():
        note(
            f"{file} computes the same output for {len(values)} different images. If it is no test file, its weights "
            "or the normalisation in its card are wrong."
        )


def binary(values: np.ndarray, probabilities: bool) -> np.ndarray:
    """Return the outputs [B, 2] of a network with one output [B, 1] for the second of two classes."""
    return np.concatenate([1 - values if probabilities else np.zeros_like(values), values], axis=1)
