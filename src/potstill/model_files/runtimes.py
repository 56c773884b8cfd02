"""Exported files as models `image -> Outputs`: ONNX, OpenVINO, ExecuTorch, LiteRT, selected by the file extension.

All but onnxruntime are optional: they are imported when such a file is opened.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import joblib
import numpy as np
import torch
from torch import Tensor

from potstill import artifacts
from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel, temperature_in
from potstill.model_files.onnx_input import CARD, TEMPERATURE
from potstill.models.card import Card
from potstill.models.card_record import card_from_json, card_from_text
from potstill.models.outputs import Outputs, resized

SUFFIXES = (".onnx", ".xml", ".pte", ".tflite")
"""Extensions of exported files: ONNX, OpenVINO, ExecuTorch, LiteRT."""

MODULES = {
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "tflite": ("tflite", "ai_edge_litert"),
    "c": ("emx_onnx_cgen",),
}
"""Modules of each optional runtime, by the extra of potstill that installs them."""

PROBABILITIES = "potstill.probabilities"
"""Key of the metadata of a file whose output is probabilities instead of logits."""


class Exported(Protocol):
    """The interface of an opened exported file; temperature: of calibration, None without one."""

    card: Card
    temperature: float | None

    def arranged(self, image: Tensor) -> np.ndarray: ...
    def run(self, image: np.ndarray) -> np.ndarray: ...
    def __call__(self, image: Tensor) -> Outputs: ...


def open_exported(file: Path, *, threads: int | None = None) -> Exported:
    """Return the model in an exported file; threads: None uses all cores.

    Raises `ModelError` if the file cannot be read or its runtime is not installed.
    """
    kinds = dict(zip(SUFFIXES, (OnnxModel, OpenVinoModel, ExecutorchModel, TfliteModel), strict=True))
    if file.suffix not in kinds:
        raise ModelError(f"{file} is not an exported model: its name must end in {', '.join(kinds)}.")
    return kinds[file.suffix](file, threads=threads)


def require(*runtimes: str) -> None:
    """Raise `ModelError` that names all modules which `runtimes` need and which are not installed."""
    missing = [
        f"{module} is not installed. Install it: pip install 'potstill[{runtime}]'"
        for runtime in runtimes
        for module in MODULES[runtime]
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ModelError(*missing)


class _Runtime:
    """What the models of all runtimes share: images of any size in, logits out."""

    card: Card
    temperature: float | None = None

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, C, H, W] in 0..1 at the card's size."""
        size = self.card.size
        return np.ascontiguousarray(resized(image.float().cpu(), channels=self.card.channels, size=size).numpy())

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the graph on the result of `arranged`."""
        raise NotImplementedError

    def __call__(self, image: Tensor) -> Outputs:
        """Return the outputs for images [B, C, H, W] in 0..1 of any size."""
        return Outputs(torch.from_numpy(self.run(self.arranged(image)).copy()).to(image.device))


class OpenVinoModel(_Runtime):
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
            metadata = {
                key: model.get_rt_info(key.split(".")).astype(str)
                for key in (CARD, TEMPERATURE)
                if model.has_rt_info(key.split("."))
            }
        except RuntimeError as error:
            raise ModelError(
                f"{file} is not an OpenVINO model of potstill ({_reason(error)}). Export it again."
            ) from None
        if CARD not in metadata:
            raise ModelError(f"{file} is not an OpenVINO model of potstill: it has no card. Export it again.")
        self.card = card_from_text(metadata[CARD], origin=f"The card inside {file}")
        self.temperature = temperature_in(metadata, file)
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the graph on the result of `arranged`."""
        return self._request.infer({0: image})[0]


class ExecutorchModel(_Runtime):
    """A model run by ExecuTorch, one image at a time, with its card next to it. It chooses the number of threads."""

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        require("executorch")
        _require_file(file)
        beside = file.with_suffix(".card.json")
        if not beside.is_file():
            raise ModelError(
                f"{file} has no card: {beside.name} must be in the same folder. Copy both, or export it again."
            )
        content = artifacts.read_object(beside)
        calibration = content.pop("temperature", None)
        self.temperature = temperature_in({} if calibration is None else {TEMPERATURE: str(calibration)}, beside)
        self.card = card_from_json(content, origin=str(beside))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the interface being experimental
            from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]  # optional

        try:
            self._program = Runtime.get().load_program(file)
            self._method = self._program.load_method("forward")
        except RuntimeError as error:
            raise ModelError(f"{file} is not an ExecuTorch model ({_reason(error)}). Export it again.") from None

    def run(self, image: np.ndarray) -> np.ndarray:
        """Run the graph on the result of `arranged`."""
        return np.concatenate([self._one(one[None]) for one in image])

    def _one(self, image: np.ndarray) -> np.ndarray:
        return self._method.execute([torch.from_numpy(image)])[0].numpy().copy()


class TfliteModel(_Runtime):
    """A .tflite file of potstill run by LiteRT, one image at a time; threads: None uses all cores.

    Images and results are numbers, whatever their type in the file: a pixel of 255 is 1.
    """

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        require("tflite")
        from ai_edge_litert.interpreter import Interpreter  # optional

        _require_file(file)
        metadata = _tflite_metadata(file)
        self.card = card_from_text(metadata[CARD], origin=f"The card inside {file}")
        self.temperature = temperature_in(metadata, file)
        self.probabilities = PROBABILITIES in metadata
        try:
            with _without_native_messages():
                self._interpreter = Interpreter(str(file), num_threads=threads or joblib.cpu_count())
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT cannot run {file} ({_reason(error)}). Export it again.") from None
        self._image = self._interpreter.get_input_details()[0]
        self._result = self._interpreter.get_output_details()[0]

    def arranged(self, image: Tensor) -> np.ndarray:
        """Return images [B, H, W, C] with the type of the file's input."""
        pixels = super().arranged(image).transpose(0, 2, 3, 1)
        kind, (scale, zero) = self._image["dtype"], self._image["quantization"]
        if kind == np.float32:
            return np.ascontiguousarray(pixels)
        limits = np.iinfo(kind)
        return np.clip(np.rint(pixels / scale) + zero, limits.min, limits.max).astype(kind)

    def run(self, image: np.ndarray) -> np.ndarray:
        """Return the logits [B, K] of the result of `arranged`."""
        result = np.concatenate([self._one(one[None]) for one in image])
        kind, (scale, zero) = self._result["dtype"], self._result["quantization"]
        if kind != np.float32:
            result = np.float32(scale) * (result.astype(np.float32) - zero)
        if not self.probabilities:
            return result
        # Half a step for a probability that is rounded to 0. The file has divided by the temperature.
        likely = np.maximum(result, np.float32(scale / 2) or np.finfo(np.float32).tiny)
        return np.float32(self.temperature or 1.0) * np.log(likely)

    def _one(self, image: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._image["index"], image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._result["index"])


@contextlib.contextmanager
def _without_native_messages() -> Iterator[None]:
    """Keep LiteRT's lines about its own delegates off the terminal; its errors are exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _tflite_metadata(file: Path) -> dict[str, str]:
    """Return the texts in the metadata of a .tflite file, by name."""
    import tflite  # optional

    content = file.read_bytes()
    if content[4:8] == b"TFL3":
        with contextlib.suppress(struct.error, IndexError, UnicodeDecodeError, TypeError):
            model: Any = tflite.Model.GetRootAsModel(content, 0)
            entries = [model.Metadata(number) for number in range(model.MetadataLength())]
            texts = {one.Name().decode(): _text(model.Buffers(one.Buffer())) for one in entries}
            if CARD in texts:
                return texts
    raise ModelError(
        f"{file} is not a TensorFlow Lite file of potstill: it has no card, or is damaged. Export it again."
    )


def _text(buffer: Any) -> str:
    return buffer.DataAsNumpy().tobytes().rstrip(b"\0").decode()


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"There is no file {file}. Give the path of an exported model.")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
