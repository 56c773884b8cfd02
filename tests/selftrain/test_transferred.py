"""Teachers with pretrained weights: probes that share a backbone, nobody labels what it learned from, fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill import progress
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.selftrain import unlabelled
from potstill.stages.selftrain.pretrained_teachers import transferred
from potstill.stages.selftrain.probed import Backbone, Probed
from potstill.stages.selftrain.pseudo_labels import CalibratedTeacher, label, probabilities
from potstill.stages.selftrain.settings import SelftrainConfig
from potstill.stages.selftrain.teachers import prepare_teachers
from tests.selftrain.worlds import labelled, more, pool_file, settings

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> tuple[SelftrainConfig, Data]:
    """Return the settings of a transfer from a random network, and its data."""
    backbone = zoo.create("builtin:small-cnn", classes=("x", "y"), size=(8, 8), channels=1, seed=5)
    save_model(backbone, tmp_path / "backbone")
    data, _ = labelled(tmp_path, 200)
    config = settings(
        data, pool_file(tmp_path, more(60)), labels=60, folds=3, transfer={"views": 1, "unfreeze": "none"},
        teachers=[{"model": "builtin:small-cnn", "weights": str(tmp_path / "backbone" / zoo.WEIGHTS)}], noise="none",
    )  # fmt: skip
    return config, dataset.prepare(config.data, manifest=unlabelled.read(config))


def made(config: SelftrainConfig, data: Data, folder: Path) -> list[CalibratedTeacher]:
    return prepare_teachers(config, data, folder)[0]


def test_each_label_is_kept_from_one_probe_and_that_one_is_asked(
    world: tuple[SelftrainConfig, Data], tmp_path: Path
) -> None:
    config, data = world
    models, quality = prepare_teachers(config, data, tmp_path / "teachers")
    rows = data.manifest.rows("train", labelled=True)
    unseen = np.stack([~np.isin(rows, teacher.seen) for teacher in models])
    assert (unseen.sum(0) == 1).all() and quality["predictions"] == len(rows) == 48
    store = label(models, data, rows, tmp_path / "store", with_distance=True, title="")
    image = data.loader().clean_batch(rows[:1]).image
    with torch.no_grad():
        (own,) = [teacher.model(image).logits for teacher, free in zip(models, unseen[:, 0], strict=True) if free]
    expected = (own / models[0].temperature).softmax(1)
    np.testing.assert_allclose(probabilities(store, rows[:1]), expected, rtol=5e-3)


def test_the_labels_of_a_fold_do_not_change_its_own_probe(world: tuple[SelftrainConfig, Data], tmp_path: Path) -> None:
    config, data = world
    parts = np.array_split(data.manifest.rows("train", labelled=True), 3)
    other = data.manifest.label.copy()
    other[parts[0]] = (other[parts[0]] + 1) % 3
    swapped = replace(data, manifest=data.manifest.with_labels(other))
    before, after = (transferred(config, config.teachers[0], d, parts, tmp_path) for d in (data, swapped))
    assert [one.identity == two.identity for one, two in zip(before, after, strict=True)] == [True, False, False]


def test_probes_of_one_backbone_compute_features_once() -> None:
    class Counting(Classifier):
        calls = 0

        def forward(self, image: torch.Tensor):
            type(self).calls += 1
            return super().forward(image)

        def replace(self, **changes: object) -> Classifier:
            super().replace(**changes)
            self.taps = changes["taps"]
            return self

    made = zoo.create("builtin:small-cnn", classes=("x", "y"), size=(8, 8), channels=1)
    shared = Backbone(Counting(made.network, made.card))
    Counting.calls = 0
    image = torch.rand(2, 1, 8, 8)
    probes = [Probed(shared, made, lambda x, k=k: x[:, :2] * k) for k in (1, 2)]
    one, two = (probe(image).logits for probe in probes)
    assert Counting.calls == 1
    torch.testing.assert_close(two, 2 * one)
    probes[0](image.clone())
    assert Counting.calls == 2


def test_fine_tuning_is_kept_where_held_out_labels_say_so(world: tuple[SelftrainConfig, Data], tmp_path: Path) -> None:
    config, data = world
    tuned = config.model_copy(update={"transfer": config.transfer.model_copy(update={"unfreeze": "all", "epochs": 2})})
    with progress.use(progress.Display()) as shown:
        models = made(tuned, data, tmp_path / "teachers")
    told = " ".join(shown.notes)
    assert "validation images" not in told and ("Kept the fine-tuned model" in told) != (
        "Kept the linear probe" in told
    )
    kept = {isinstance(teacher.model, Classifier) for teacher in models}
    assert len(kept) == 1 and ("Kept the fine-tuned model" in told) == kept.pop()
    again = made(tuned, data, tmp_path / "teachers")
    assert [teacher.identity for teacher in again] == [teacher.identity for teacher in models]
