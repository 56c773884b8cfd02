"""Export of a trained classifier as one ONNX file that includes preprocessing and normalisation."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.exporters import onnx_file as onnx_file
from potstill.exporters.quiet import quiet
from potstill.model_files.onnx_input import InputForm
from potstill.models import zoo
from potstill.models.outputs import Classifier, bare

OPSET = 20
"""Widely supported, and the newest without the 8-bit and 4-bit types of later operator sets."""


def export_onnx(
    classifier: Classifier,
    file: Path,
    *,
    input: InputForm = "raw",
    opset: int = OPSET,
    temperature: float | None = None,
) -> None:
    """Write a classifier, in eval mode and without side heads, as an ONNX file.

    The graph takes `image` and returns `logits` [batch, K], with any batch size. input: "raw" takes decoded photos of
    any size, uint8 [batch, height, width, 1 or 3], and preprocesses them by the card; "prepared" takes float32 [batch,
    C, H, W] in 0..1 at the card's size. Normalisation is part of the graph. The card, and `temperature` if given, are
    in the file's metadata. Weights are in the file itself. The classifier is not changed; an existing file is replaced
    atomically.
    Raises `ModelError` if the network cannot be exported as a graph, or not below 2 GB.
    """
    size = 4 * zoo.count_parameters(classifier)
    if size > onnx_file.LARGEST:
        raise onnx_file.too_large(file, size)
    model = _traced(Graph(classifier), opset)
    onnx_file.write(model, file, onnx_file.metadata_of(classifier.card, temperature), input=input)


class Graph(nn.Module):
    """The exported module: image in 0..1 -> logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        network = copy.deepcopy(bare(classifier.network)).cpu().float()
        self.model = classifier.replace(network=network, taps=()).cpu()
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).logits


def _traced(graph: Graph, opset: int) -> ir.Model:
    card = graph.model.card
    # Two images, because a batch size of one would be treated as a constant.
    example = torch.full((2, card.channels, *card.size), 0.5)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=opset,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            )
    except Exception as error:  # the user's network may raise anything
        raise ModelError(_refused(card.model, error)) from error
    assert program is not None, "torch.onnx.export returns a program with dynamo=True"
    return program.model


def _refused(name: str, error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return (
        f"{name} cannot be exported as ONNX: {reason[:300]} Networks with control flow that depends on the values of "
        "the image, or with operators that ONNX does not have, are not supported; choose another student."
    )
