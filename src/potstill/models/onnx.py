"""An exported file read back as a model: `image -> Outputs`, run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from potstill.errors import ModelError
from potstill.models.card import Card
from potstill.models.outputs import Outputs, resized

CARD_KEY = "potstill.card"


class OnnxModel:
    """A file that takes `image`, float32 [B, C, H, W] in 0..1 at its card's size, and gives `logits` [B, K].

    threads: 0 lets onnxruntime use all cores. Raises `ModelError` for a file that is no such model.
    """

    def __init__(self, file: Path, *, threads: int = 0) -> None:
        self.session = open_session(file, threads=threads)
        self.card = _card(self.session, file)
        self._input = self.session.get_inputs()[0].name

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1 of any size."""
        image = resized(image, channels=self.card.channels, size=self.card.size)
        (logits,) = self.session.run(None, {self._input: np.ascontiguousarray(image.cpu().numpy())})
        return Outputs(torch.from_numpy(logits))


def open_session(file: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Return an onnxruntime session on the CPU; raise `ModelError` where the file is no ONNX model."""
    if not file.is_file():
        raise ModelError(f"There is no file at {file}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, without a common base
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{file} cannot be run by onnxruntime: {reason}. Export it again, or check that the file is complete."
        ) from None


def _card(session: onnxruntime.InferenceSession, file: Path) -> Card:
    metadata = session.get_modelmeta().custom_metadata_map
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{file} was not exported by potstill: it does not say its class names, size and normalisation. "
            "Give a file from a run folder, such as runs/NAME/student.onnx."
        )
    return Card.from_json(json.loads(metadata[CARD_KEY]))
