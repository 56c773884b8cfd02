"""Predictions in a file: read from CSV, NPZ and NPY, understood, and matched to images; what is wrong is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from potstill import progress
from potstill.data.formats import from_arrays
from potstill.data.manifest import Manifest
from potstill.errors import DataError
from potstill.teachers.prediction_files import Predictions, matched, read_predictions

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], dtype=np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def csv(folder: Path, text: str) -> Path:
    file = folder / "answers.csv"
    file.write_text(text, encoding="utf-8")
    return file


def images(*names: str) -> Manifest:
    count = len(names)
    pixels = np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4)
    manifest = from_arrays(pixels, np.arange(count) % 2, splits=np.array(["train"] * count), classes=["a", "b"])
    manifest.source.names = names
    return manifest


@pytest.mark.parametrize("text", [
    "image,cat,dog,bird\nx.png,0.7,0.2,0.1\ny.png,0.1,0.8,0.1\n",
    "cat;dog;bird;file\n70;20;10;x.png\n10;80;10;y.png\n",
])  # fmt: skip
def test_probabilities_in_a_csv(tmp_path: Path, text: str) -> None:
    read = read_predictions(csv(tmp_path, text))
    assert read.classes == ("cat", "dog", "bird") and read.names == ("x.png", "y.png")
    assert np.allclose(softmax(read.logits), P, atol=1e-6)
    assert "detected probabilities" in progress.display().notes[0]


def test_logits_are_kept_and_a_given_kind_is_believed(tmp_path: Path) -> None:
    text = "row,a,b\n1,2.5,-1\n0,0,0.5\n"
    read = read_predictions(csv(tmp_path, text))
    assert read.logits.tolist() == [[2.5, -1.0], [0.0, 0.5]] and read.rows.tolist() == [1, 0]
    ones = csv(tmp_path, "row,a,b\n0,1,0\n1,0,1\n")
    assert read_predictions(ones, kind="logits").logits.tolist() == [[1, 0], [0, 1]]
    assert np.allclose(softmax(read_predictions(ones).logits), np.eye(2), atol=1e-6)


@pytest.mark.parametrize("text", ["image,label\nx,dog\ny,cat\n", "image,prediction\nx,1\ny,0\n"])
def test_hard_labels_by_name_or_number(tmp_path: Path, text: str) -> None:
    read = read_predictions(csv(tmp_path, text), classes=("cat", "dog"))
    assert np.allclose(softmax(read.logits), [[0, 1], [1, 0]], atol=1e-6) and np.isfinite(read.logits).all()


def test_columns_that_are_not_classes_are_told(tmp_path: Path) -> None:
    read = read_predictions(csv(tmp_path, "image,label,cat,dog\nx,cat,3,1\n"))
    assert read.classes == ("cat", "dog")
    assert any("ignoring the columns label" in note for note in progress.display().notes)


@pytest.mark.parametrize("key", ["logits", "probabilities", "probs"])
def test_arrays(tmp_path: Path, key: str) -> None:
    values = np.log(P) if key == "logits" else P
    np.savez(tmp_path / "a.npz", **{key: values}, names=["x", "y"], classes=["cat", "dog", "bird"])
    read = read_predictions(tmp_path / "a.npz")
    assert np.allclose(softmax(read.logits), P, atol=1e-6)
    assert read.names == ("x", "y") and read.classes == ("cat", "dog", "bird")


def test_bare_arrays_and_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.log(P) + 5)
    assert np.allclose(softmax(read_predictions(tmp_path / "a.npy").logits), P, atol=1e-6)
    np.savez(tmp_path / "b.npz", labels=np.array([2, 0]), rows=np.array([0, 1]))
    assert read_predictions(tmp_path / "b.npz", classes=("a", "b", "c")).logits.argmax(1).tolist() == [2, 0]
    assert read_predictions(csv(tmp_path, "0.5,1.5\n2,-3\n")).logits.shape == (2, 2)


@pytest.mark.parametrize(("text", "told"), [
    ("image,cat,dog\n", "has no predictions"),
    ("image,cat,dog\nx,1\n", "line 2: 2 fields, but the header has 3"),
    ("image,cat,dog\nx,1,nan\n", "prediction 1 is not finite"),
    ("image,cat,dog\nx,1,2\ny,one,2\n", "Every prediction must be a number"),
    ("image,remark\nx,nice\n", "neither a column of numbers for each class nor one of labels"),
    ("image,label\nx,fish\n", "labels that are not classes: fish. Classes: cat, dog."),
    ("image,label\nx,7\n", "labels that are not classes: 7"),
])  # fmt: skip
def test_what_makes_no_sense_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told.replace("(", r"\(")):
        read_predictions(csv(tmp_path, text), classes=("cat", "dog"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file of predictions"):
        read_predictions(tmp_path / "none.csv")
    np.savez(tmp_path / "o.npz", logits=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="without running code"):
        read_predictions(tmp_path / "o.npz")
    np.savez(tmp_path / "w.npz", weights=P)
    with pytest.raises(DataError, match="none is named logits, probabilities or labels"):
        read_predictions(tmp_path / "w.npz")
    with pytest.raises(DataError, match="3 columns of predictions"):
        read_predictions(csv(tmp_path, "1,2,3\n3,4,5\n"), classes=("a", "b"))
    with pytest.raises(DataError, match="must have probabilities"):
        read_predictions(csv(tmp_path, "1,-2\n3,4\n"), kind="probabilities")


def about(names: tuple[str, ...] | None = None, rows: list[int] | None = None, count: int = 0) -> Predictions:
    lines = len(names or rows or ()) or count
    return Predictions("a.csv", np.zeros((lines, 2), np.float32), None, names, None if rows is None else np.array(rows))


def test_names_are_matched_in_full_or_by_what_is_unique() -> None:
    three = images("train/a/1.png", "train/b/1.png", "test/a/2.png")
    assert matched(about(("train/b/1.png", "test/a/2.png")), three).tolist() == [-1, 0, 1]
    assert progress.display().notes == []
    assert matched(about(("C:\\data\\a\\1.png", "C:\\data\\b\\1.png")), three).tolist() == [0, 1, -1]
    assert "matched to the images by folder and file name" in progress.display().notes[-1]
    assert matched(about(("1.jpg", "2.jpg")), three).tolist() == [-1, -1, 1]  # two images are called 1
    assert matched(about(("x", "y")), three).tolist() == [-1, -1, -1]


def test_rows_count_before_any_image_was_left_out() -> None:
    three = images("a", "b", "c")
    few = three.select(np.array([2, 0]))
    assert matched(about(count=3), few).tolist() == [2, 0]
    assert matched(about(rows=[2, 1]), few).tolist() == [0, -1]


@pytest.mark.parametrize(("wrong", "told"), [
    (about(count=2), "without names or rows, but there are 3 images"),
    (about(rows=[1, 1]), "two predictions for one row"),
    (about(("a", "a", "b")), "several predictions for 1 of its names"),
])  # fmt: skip
def test_what_cannot_be_matched_is_told(wrong: Predictions, told: str) -> None:
    with pytest.raises(DataError, match=told):
        matched(wrong, images("a", "b", "c"))
