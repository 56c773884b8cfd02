"""Evaluation of the test split, once: the logits of all models of a run, after all choices were made.

The logits are stored in one file, so that tables, intervals and reports can be made again without another evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from safetensors.numpy import load_file, save

from potstill import artifacts, progress
from potstill.data.manifest import Manifest
from potstill.data.pixels import Pixels
from potstill.model_files.onnx import OnnxModel
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.training import devices, predict
from potstill.training.predict import Model

FILE = "logits.safetensors"
ORIGINALS = 256  # images that are decoded at once


def open_test(models: dict[str, Model], identities: dict[str, str], data: Data, folder: Path) -> dict[str, np.ndarray]:
    """Return the logits [N, K] of every model for the test split, by name."""
    inputs = {"test": test_fingerprint(data), "models": identities}
    artifacts.stage(folder, inputs, lambda: _evaluate(models, data, folder))
    return load_file(folder / FILE)


def test_fingerprint(data: Data) -> str:
    """Return the fingerprint of the test split: the lock of promise 7."""
    return data.manifest.select(data.manifest.rows("test")).fingerprint


def _evaluate(models: dict[str, Model], data: Data, folder: Path) -> dict[str, Any]:
    rows = data.manifest.rows("test", labelled=True)
    raw = {name: model for name, model in models.items() if takes_photos(model)}
    logits = {}
    with progress.task("Evaluating the test split", total=len(models)) as task:
        for name in models.keys() - raw.keys():
            logits[name] = clean_logits(models[name], data, rows)
            task.advance(text=name)
        logits |= logits_of_originals(raw, data.manifest, rows, data.pixels)
        task.advance(len(raw))
    with artifacts.atomic(folder / FILE) as temporary:
        temporary.write_bytes(save(logits))
    return {"images": len(rows)}


def takes_photos(model: object) -> TypeGuard[OnnxModel]:
    """Whether a model is a file that takes photos as they are decoded, and is therefore measured on them."""
    return isinstance(model, OnnxModel) and model.raw


def logits_of_originals(
    models: Mapping[str, OnnxModel], manifest: Manifest, rows: np.ndarray, pixels: Pixels | None = None
) -> dict[str, np.ndarray]:
    """Return the logits [N, K] of files that take photos, by name, for the original images of a manifest.

    Each image is decoded once, and not resized. pixels: those of the manifest, used where they are the originals.
    """
    if not models:
        return {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for start in range(0, len(rows), ORIGINALS):
        some = rows[start : start + ORIGINALS]
        if pixels is not None and pixels.unchanged:
            images = list(pixels.take(some).permute(0, 2, 3, 1).numpy())
        else:
            images = [manifest.image(int(row)) for row in some]
        for name, model in models.items():
            parts[name].append(model.of_pixels(images))
    return {name: np.concatenate(part) for name, part in parts.items()}


def clean_logits(model: Model, data: Data, rows: np.ndarray) -> np.ndarray:
    """Return the logits of a model for images without augmentation, computed in float32: [N, K].

    A model with a larger input than the data's gets larger pixels of the same photos.
    """
    loader = data.for_input_of(model.card).loader(device=devices.device() if isinstance(model, Classifier) else "cpu")
    if isinstance(model, Classifier):
        model.to(loader.device)
    return predict.predict_logits(model, loader, rows)
