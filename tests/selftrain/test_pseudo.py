"""Labels: nobody labels what it has seen, the temperature is recovered, targets fit their image, parts resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from potstill.data.formats import from_arrays
from potstill.data.loader import Batch
from potstill.data.manifest import UNLABELLED
from potstill.models.outputs import Outputs
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig
from potstill.stages.selftrain import pseudo_labels
from potstill.stages.selftrain.pseudo_labels import (
    OWN_SHARE,
    CalibratedTeacher,
    Targets,
    calibrate,
    label,
    probabilities,
    quality,
)
from potstill.teachers.prediction_store import PART_ROWS, Store

NOBODY = np.zeros(0, np.int64)


def world(count: int, known: int) -> Data:
    """Return images whose first pixel is their row number; the first `known` have labels row % 3."""
    images = np.zeros((count, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    labels = np.where(np.arange(count) < known, np.arange(count) % 3, UNLABELLED)
    manifest = from_arrays(images, labels, classes=["a", "b", "c"])
    return dataset.prepare(DataConfig(path="none"), manifest=manifest)


class PoolTeacher:
    """A model that says the same logits of every row, and remembers the rows and the sizes of its batches."""

    def __init__(self, *logits: float) -> None:
        self.logits, self.rows, self.sizes = torch.tensor(logits, dtype=torch.float32), [], []

    def __call__(self, image: torch.Tensor) -> Outputs:
        corner = (image[:, 0, 0] * 255).round().long()
        self.rows += (corner[:, 0] + 256 * corner[:, 1]).tolist()
        self.sizes.append(len(image))
        return Outputs(self.logits.expand(len(image), -1))


def test_a_labelled_image_is_labelled_by_who_has_not_seen_it(tmp_path: Path) -> None:
    data = world(6, known=4)
    one, other = (
        CalibratedTeacher(PoolTeacher(5, 0, 0), "one", np.array([0, 1])),
        CalibratedTeacher(PoolTeacher(0, 5, 0), "other", np.array([2, 3])),
    )
    store = label([one, other], data, np.arange(6), tmp_path / "s", with_distance=False, title="")
    said = probabilities(store, np.arange(6))
    first, second = (F.softmax(teacher.model.logits, 0).numpy() for teacher in (one, other))
    np.testing.assert_allclose(said[:2], np.stack([second] * 2), rtol=2e-3)
    np.testing.assert_allclose(said[2:4], np.stack([first] * 2), rtol=2e-3)
    np.testing.assert_allclose(said[4:], np.stack([(first + second) / 2] * 2), rtol=2e-3)
    apart = store.read(np.arange(6), np.zeros(6, int))["disagreement"]
    assert (apart[:4] == 0).all() and apart[4:] == pytest.approx(0.5 * np.abs(first - second).sum() / 2, rel=1e-2)


def test_an_image_that_everybody_has_seen_is_refused(tmp_path: Path) -> None:
    teacher = CalibratedTeacher(PoolTeacher(1, 0, 0), "one", np.array([0]))
    with pytest.raises(AssertionError, match="unseen"):
        label([teacher], world(6, known=3), np.arange(6), tmp_path / "s", with_distance=False, title="")


def test_the_temperature_of_overconfident_answers_is_recovered() -> None:
    data = world(200, known=200)
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (200, 3))
    drawn = np.array([random.choice(3, p=np.exp(z) / np.exp(z).sum()) for z in logits])
    data = Data(data.manifest.with_labels(drawn), data.pixels, data.crop, data.resize)
    table = torch.tensor(3.0 * logits, dtype=torch.float32)

    def model(image: torch.Tensor) -> Outputs:
        return Outputs(table[(image[:, 0, 0, 0] * 255).round().long()])

    teacher = CalibratedTeacher(model, "sharp", NOBODY)
    said, truth = calibrate([teacher], data, np.arange(200))
    assert (truth == drawn).all() and said.shape == (200, 3)
    assert teacher.temperature == pytest.approx(3.0, rel=0.3)


def test_calibration_asks_each_voice_only_about_what_it_has_not_seen() -> None:
    data = world(6, known=6)
    one, other = (
        CalibratedTeacher(PoolTeacher(2, 0, 0), "one", np.array([0, 1, 2])),
        CalibratedTeacher(PoolTeacher(0, 2, 0), "other", np.array([3, 4, 5])),
    )
    calibrate([one, other], data, np.arange(6))
    assert (one.model.rows, other.model.rows) == ([3, 4, 5], [0, 1, 2])
    assert one.temperature == other.temperature


def test_targets_fit_their_image_however_often_it_is_repeated(tmp_path: Path) -> None:
    rows = np.arange(4)
    chance = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], np.float32)
    stores = []
    for name, values in (("later", chance[:, ::-1]), ("first", chance)):
        store = Store(tmp_path / name, rows, 1, {})
        store.write(0, 0, {"logits": np.log(values).astype(np.float16)})
        stores.append(store)
    base, own = np.array([0, 3, 3, 2]), np.array([1, UNLABELLED, UNLABELLED, UNLABELLED])
    index = torch.tensor([3, 0, 1])
    batch = Batch(torch.zeros(3, 1, 2, 2), torch.zeros(3), index, torch.tensor([5, 6, 7]))
    said = F.softmax(Targets(*stores, base, own, 3)(batch).logits, 1).numpy()
    known = (1 - OWN_SHARE) * chance[0] + OWN_SHARE * np.eye(3)[1]
    np.testing.assert_allclose(said, [chance[2, ::-1], known, chance[3, ::-1]], rtol=2e-3)
    hard = F.softmax(Targets(*stores, base, own, 3, hard=True)(batch).logits, 1).numpy()
    assert hard[0].argmax() == 0 and hard[0].max() > 0.99


def test_labelling_goes_on_with_the_parts_that_are_missing_in_small_batches(tmp_path: Path) -> None:
    data, rows = world(PART_ROWS + 50, known=3), np.arange(3, PART_ROWS + 50)
    teacher = CalibratedTeacher(PoolTeacher(1, 0, 0), "one", NOBODY)
    store = label([teacher], data, rows, tmp_path / "s", with_distance=False, title="")
    assert max(teacher.model.sizes) <= pseudo_labels.BATCH and sorted(teacher.model.rows) == rows.tolist()
    whole = store.read(rows, np.zeros_like(rows))["logits"]
    (tmp_path / "s" / "manifest.json").unlink()
    (tmp_path / "s" / "view-0000" / "part-00001.safetensors").unlink()
    teacher.model.rows.clear()
    again = label([teacher], data, rows, tmp_path / "s", with_distance=False, title="")
    assert sorted(teacher.model.rows) == rows[PART_ROWS:].tolist()
    assert (again.read(rows, np.zeros_like(rows))["logits"] == whole).all()


def test_quality_counts_the_answers_above_the_floor() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]]))
    found = quality(logits, np.array([0, 1, 0, 1]), temperature=1.0, min_confidence=0.65)
    assert found["coverage"]["percent"] == 75.0 and found["precision"]["percent"] == pytest.approx(66.67)
    low, high = found["precision"]["interval"]
    assert low < 66.67 < high
    assert quality(logits, np.zeros(4, int), temperature=1.0, min_confidence=0.95)["precision"] is None
