"""Evaluation of the test split, once: the logits of all models of a run, after all choices were made.

The logits are stored in one file, so that tables, intervals and reports can be made again without another evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from potstill import artifacts, progress
from potstill.models.outputs import Classifier
from potstill.stages.dataset import Data
from potstill.training import devices, predict
from potstill.training.predict import Model

FILE = "logits.safetensors"


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
    logits = {}
    with progress.task("Evaluating the test split", total=len(models)) as task:
        for name, model in models.items():
            logits[name] = clean_logits(model, data, rows)
            task.advance(text=name)
    with artifacts.atomic(folder / FILE) as temporary:
        temporary.write_bytes(save(logits))
    return {"images": len(rows)}


def clean_logits(model: Model, data: Data, rows: np.ndarray) -> np.ndarray:
    """Return the logits of a model for images without augmentation, computed in float32: [N, K].

    A model with a larger input than the data's gets larger pixels of the same photos.
    """
    loader = data.for_input_of(model.card).loader(device=devices.device() if isinstance(model, Classifier) else "cpu")
    if isinstance(model, Classifier):
        model.to(loader.device)
    return predict.predict_logits(model, loader, rows)
