"""Exported files: every student as ONNX and as 8-bit ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from potstill import artifacts
from potstill.data.draws import permutation
from potstill.exporters import export_int8, export_onnx, gate
from potstill.models.freeze import bits
from potstill.models.outputs import Classifier
from potstill.stages import rejection
from potstill.stages.dataset import Data
from potstill.stages.recipe import ExportConfig
from potstill.stages.target import with_device_figures
from potstill.training.autotune import macs

MODEL, INT8 = "model.onnx", "model_int8.onnx"
GATED, GATED_OF_LARGE = 200, 50  # images on which a file is compared
LARGE = 300_000_000  # multiply-accumulates an image


@dataclass(frozen=True)
class Exported:
    """The files of one trained model; `int8` is None if it was not requested."""

    model: Path
    int8: Path | None


def export(
    classifier: Classifier,
    data: Data,
    config: ExportConfig,
    folder: Path,
    *,
    source: Path,
    int8: bool,
    precision: float | None = None,
) -> Exported:
    """Write `folder`/model.onnx and, if `int8`, model_int8.onnx, calibrated on training images without augmentation.

    source: the folder of the network. precision: required of their answers: each gets its threshold (`rejection`).
    """
    card = classifier.card
    shown = [config.input, card.fit, card.resize, card.crop, card.size]
    inputs = {"weights": bits(classifier), "int8": int8, "calibration": config.calibration, "input": shown}
    inputs |= {} if precision is None else {"precision": precision}
    of_int8 = source if int8 else None
    artifacts.stage(folder, inputs, lambda: _export(classifier, data, config, folder, of_int8, precision))
    return Exported(folder / MODEL, folder / INT8 if int8 else None)


def _export(
    classifier: Classifier, data: Data, config: ExportConfig, folder: Path, int8: Path | None, precision: float | None
) -> dict[str, Any]:
    export_onnx(classifier, folder / MODEL, input=config.input)
    compared = gate_images(classifier, data)
    gate.check_float(folder / MODEL, classifier, compared)
    if int8:
        images = calibration_images(classifier, data, config.calibration)
        export_int8(classifier, folder / MODEL, folder / INT8, images)
        gate.check_int8(folder / INT8, classifier, compared, source=int8)
    files = sorted(folder.glob("*.onnx"))
    for file in files:
        rejection.file_with_threshold(file, data, precision)
        with_device_figures(file)
    return {"bytes": {file.name: file.stat().st_size for file in files}}


def gate_images(classifier: Classifier, data: Data) -> Tensor:
    """Return images [N, C, H, W] in 0..1 at the model's size on which files are compared with what they should compute.

    They are of the validation split, chosen with a fixed seed.
    """
    rows = data.manifest.rows("validation")
    rows = rows[permutation(0, 0, len(rows), "gate")[: GATED if macs(classifier) < LARGE else GATED_OF_LARGE]]
    return classifier.resize(data.loader().clean_batch(rows).image).clamp(0, 1)


def calibration_images(classifier: Classifier, data: Data, count: int) -> np.ndarray:
    """Return float32 [N, C, H, W] in 0..1 at the model's size: training images, chosen with a fixed seed."""
    rows = data.manifest.rows("train")
    rows = rows[permutation(0, 0, len(rows), "calibration")[:count]]
    image = data.loader().clean_batch(rows).image
    return classifier.resize(image).clamp(0, 1).numpy()  # resizing rounds to a little outside
