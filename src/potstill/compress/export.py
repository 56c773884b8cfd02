"""ONNX files for devices: normalisation inside, the card in the metadata, and an 8-bit version of them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from potstill.artifacts import atomic
from potstill.errors import ModelError
from potstill.models.onnx import CARD_KEY
from potstill.models.outputs import Classifier

OPSET = 20


class _LogitsOf(nn.Module):
    """image -> logits, all that a device needs."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(image).logits


def export_onnx(classifier: Classifier, file: Path) -> None:
    """Write one file: `image` float32 [batch, C, H, W] in 0..1 at the card's size -> `logits` [batch, K].

    Normalisation is inside, the batch is dynamic, the card is in the metadata under "potstill.card".
    """
    card = classifier.card
    module = _LogitsOf(copy.deepcopy(classifier).cpu()).eval()
    example = torch.rand(2, card.channels, *card.size)
    with _quiet():
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=["image"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    assert program is not None
    write(stripped(program.model_proto), file, {CARD_KEY: json.dumps(card.to_json())})


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without what exporters leave for their own debugging: a tenth of a small file."""
    graph = model.graph
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def write(model: onnx.ModelProto, file: Path, metadata: dict[str, str]) -> None:
    """Write a model with this metadata, atomically."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    with atomic(file) as temporary:
        temporary.write_bytes(model.SerializeToString())


def quantize_int8(file: Path, out: Path, images: np.ndarray) -> None:
    """Write `out`, the 8-bit version of `file`: U8 activations, S8 weights per channel, in QDQ form.

    images: float32 [N, C, H, W] in 0..1 at the model's size, N >= 1; they calibrate the ranges (min-max).
    Raises `ModelError` where onnxruntime cannot quantize or run the graph.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(file)
    expected = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    if list(images.shape[1:]) != expected or not len(images):
        raise ModelError(f"Calibration images of shape {images.shape} do not fit {file}, which takes [N, *{expected}].")
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(quantized), _Reader(images, model.graph.input[0].name),
            quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
        result = onnx.load(quantized)
    write(stripped(result), out, metadata)


class _Reader:
    """Hands calibration images to onnxruntime."""

    def __init__(self, images: np.ndarray, name: str, batch: int = 32) -> None:
        self._batches = iter([{name: images[start : start + batch]} for start in range(0, len(images), batch)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own chatter from the user; what matters is told by parity, which is measured."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
