"""A small network that knows the digits, saved as a stage saves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from potstill import artifacts
from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.recipe import DataConfig
from potstill.torch_context import threads

DATA = {"path": "digits"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ResNet-8 of 4, 8 and 16 channels, trained for a second in full precision on one thread."""
    torch.manual_seed(0)
    data = dataset.prepare(DataConfig(**DATA))
    classifier = data.model("builtin:resnet20-cifar", options={"width": 4, "depth": 8})
    with threads(1):
        fit(classifier, data)
    folder = tmp_path_factory.mktemp("trained")
    save_model(classifier.eval(), folder)
    artifacts.finish(folder, {})
    return folder


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the trained network; for reading only."""
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(load_model(trained), file)
    return file


def fit(classifier: Classifier, data: dataset.Data, steps: int = 150) -> None:
    loader, rows = data.loader(), data.manifest.rows("train")
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.01)
    random = np.random.default_rng(0)
    classifier.train()
    for _ in range(steps):
        batch = loader.clean_batch(random.choice(rows, 64))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(classifier(batch.image).logits, batch.label).backward()
        optimizer.step()
