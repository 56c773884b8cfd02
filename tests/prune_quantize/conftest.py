"""A small network that knows the digits, saved as a stage saves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from potstill import artifacts
from potstill.model_files.folder import save_model
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.recipe import DataConfig

DATA = {"path": "digits"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ResNet-20 of 4, 8 and 16 channels, trained for a few seconds."""
    torch.manual_seed(0)
    data = dataset.prepare(DataConfig(**DATA))
    classifier = data.model("builtin:resnet20-cifar", options={"width": 4})
    fit(classifier, data)
    folder = tmp_path_factory.mktemp("trained")
    save_model(classifier.eval(), folder)
    artifacts.finish(folder, {})
    return folder


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
