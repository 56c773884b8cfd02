"""Exported files as models `image -> Outputs`: ONNX, OpenVINO, ExecuTorch, selected by the file extension.

OpenVINO and ExecuTorch are optional: they are imported when such a file is opened.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Protocol

import joblib
import numpy as np
import torch
from torch import Tensor

from potstill import artifacts
from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel
from potstill.models.card import Card
from potstill.models.card_record import card_from_json, card_from_text
from potstill.models.outputs import Outputs, resized

SUFFIXES = (".onnx", ".xml", ".pte")
"""Extensions of exported files: ONNX, OpenVINO, ExecuTorch."""

EXTRAS = {"openvino": "openvino", "executorch": "executorch"}
"""Module of each optional runtime, and the extra of potstill that installs it."""


class Exported(Protocol):
    """The interface of an opened exported file."""

    card: Card

    def arranged(self, image: Tensor) -> np.ndarray: ...
    def run(self, image: np.ndarray) -> np.ndarray: ...
    def __call__(self, image: Tensor) -> Outputs: ...


def open_exported(file: Path, *, threads: int | None = None) -> Exported:
    """Return the model in an exported file; threads: None uses all cores.

    Raises `ModelError` if the file cannot be read or its runtime is not installed.
    """
    kinds = dict(zip(SUFFIXES, (OnnxModel, OpenVinoModel, ExecutorchModel), strict=True))
    if file.suffix not in kinds:
        raise ModelError(f"{file} is not an exported model: its name must end in {', '.join(kinds)}.")
    return kinds[file.suffix](file, threads=threads)


def require(runtime: str) -> None:
    """Raise `ModelError` if an optional runtime is not installed."""
    if importlib.util.find_spec(runtime) is None:
        raise ModelError(f"{runtime} is not installed. Install it: pip install 'potstill[{EXTRAS[runtime]}]'")


class OpenVinoModel:
    """A model run by OpenVINO on the CPU; float operators run in float32."""

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        require("openvino")
        import openvino  # pyright: ignore[reportMissingImports]  # optional

        _require_file(file)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads or joblib.cpu_count(),
        }
        core = openvino.Core()
        try:
            model = core.read_model(file)
            self.card = card_from_text(
                model.get_rt_info(["potstill", "card"]).astype(str), origin=f"The card inside {file}"
            )
        except RuntimeError as error:
            raise ModelError(
                f"{file} is not an OpenVINO model of potstill ({_reason(error)}). Export it again."
            ) from None
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, C, H, W] in 0..1 at the card's size."""
        return _arranged(image, self.card)

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the graph on the result of `arranged`."""
        return self._request.infer({0: image})[0]

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1 of any size."""
        return Outputs(torch.from_numpy(self.run(self.arranged(image)).copy()).to(image.device))


class ExecutorchModel:
    """A model run by ExecuTorch, one image at a time, with its card next to it. It chooses the number of threads."""

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        require("executorch")
        _require_file(file)
        beside = file.with_suffix(".card.json")
        if not beside.is_file():
            raise ModelError(
                f"{file} has no card: {beside.name} must be in the same folder. Copy both, or export it again."
            )
        self.card = card_from_json(artifacts.read_json(beside), origin=str(beside))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the interface being experimental
            from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]  # optional

        try:
            self._program = Runtime.get().load_program(file)
            self._method = self._program.load_method("forward")
        except RuntimeError as error:
            raise ModelError(f"{file} is not an ExecuTorch model ({_reason(error)}). Export it again.") from None

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, C, H, W] in 0..1 at the card's size."""
        return _arranged(image, self.card)

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the graph on the result of `arranged`."""
        return np.concatenate([self._one(one[None]) for one in image])

    def _one(self, image: np.ndarray) -> np.ndarray:
        return self._method.execute([torch.from_numpy(image)])[0].numpy().copy()

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1 of any size."""
        return Outputs(torch.from_numpy(self.run(self.arranged(image))).to(image.device))


def _arranged(image: Tensor, card: Card) -> np.ndarray:
    return np.ascontiguousarray(resized(image.float().cpu(), channels=card.channels, size=card.size).numpy())


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"There is no file {file}. Give the path of an exported model.")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
