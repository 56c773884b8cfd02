"""Measuring a model on other folders: classes by name, every image, whatever the folder lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import potstill
from potstill.errors import DataError
from potstill.model_files.folder import save_model
from potstill.models import zoo

CLASSES = ("1", "2", "10")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(zoo.create("builtin:mlp", classes=CLASSES, size=(16, 16), channels=3), folder)
    return folder


def images(root: Path, count: int, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([i, *name.encode()]).integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("names", [("1", "2", "10"), ("1", "10"), ("10",)])
def test_every_image_is_measured_and_classes_are_matched_by_name(model: Path, tmp_path: Path, names) -> None:
    found = potstill.evaluate(model, images(tmp_path / "x", 4, *names))
    assert found.images == 4 * len(names)
    whole = potstill.evaluate(model, images(tmp_path / "y", 4, *CLASSES)).recall
    assert {name: value for name, value in found.recall.items() if name in names} == {n: whole[n] for n in names}


def test_an_empty_class_folder_is_no_hindrance(model: Path, tmp_path: Path) -> None:
    root = images(tmp_path / "x", 3, "1", "10")
    (root / "2").mkdir()
    assert potstill.evaluate(model, root).images == 6


def test_given_splits_are_kept_and_a_limit_counts_all(model: Path, tmp_path: Path) -> None:
    root = images(tmp_path / "x", 6, "train/1", "train/2", "val/1", "val/2")
    with pytest.raises(DataError, match="no labelled images in its test split. Choose another with --split"):
        potstill.evaluate(model, root)
    assert potstill.evaluate(model, root, split="validation").images == 12
    assert potstill.evaluate(model, images(tmp_path / "y", 9, "1", "2"), limit=6).images == 6


def test_a_class_that_the_model_lacks_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes that the model does not have: 01. Its classes: 1, 2, 10"):
        potstill.evaluate(model, images(tmp_path / "x", 3, "01", "2"))
