"""One run of a few seconds that all tests of the public functions share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import potstill

MODELS = {"teacher": "builtin:cnn", "student": "builtin:mlp"}
SETTINGS = {**MODELS, "epochs": 2, "teacher_epochs": 2, "seeds": 1, "limit": 300, "lr": 0.01, "export": {"int8": False}}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> potstill.RunResult:
    """A run on 300 of the digits, whose settings are short keywords."""
    return potstill.distill("digits", out=tmp_path_factory.mktemp("run") / "digits", **SETTINGS)


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """Images uint8 [12, 8, 8]."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:12] * (255 / 16)).round().astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, digits: np.ndarray) -> Path:
    """The same as files in a folder and one below, named so that natural order is not that of text."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number, pixels in enumerate(digits):
        Image.fromarray(pixels).save(folder / ("more" if number > 10 else "") / f"{number}.png")
    (folder / "notes.txt").write_text("no image")
    return folder
