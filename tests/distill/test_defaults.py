"""What distill chooses where no teacher, no student and no number of views is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import potstill
from potstill import progress
from potstill.config import build
from potstill.errors import ConfigError
from potstill.models import hub, packages, zoo
from potstill.models.inspect.macs import cost
from potstill.stages import dataset
from potstill.stages.distill import train
from potstill.stages.distill.defaults import chosen
from potstill.stages.distill.views import affordable_views
from potstill.stages.recipe import DataConfig, Recipe, Views
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.training.settings import TrainConfig
from tests.finetune.world import MEAN, OPTIONS, STD, write_weights

AB = ("a", "b")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of two colours, 80 x 70 pixels."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(40):
        target = folder / AB[number % 2] / f"{number}.png"
        target.parent.mkdir(exist_ok=True)
        image = random.integers(0, 80, (70, 80, 3)) + np.array([150, 0, 0] if number % 2 else [0, 0, 150])
        Image.fromarray(image.astype(np.uint8)).save(target)
    return folder


def recipe(path: Path | str, **settings) -> Recipe:
    return build(Recipe, {"data": {"path": str(path)}, **settings})


def test_small_images_get_a_residual_teacher_and_a_small_cnn() -> None:
    found, sentence = chosen(recipe("digits", student={"labels": 100}))
    assert (found.teacher.model, found.student.model) == ("builtin:resnet20-cifar", "builtin:small-cnn")
    assert found.student.labels == 100 and found.data.size is None and found.train == TrainConfig()
    assert "small images (median short side 8 pixels)" in sentence and "--teacher and --student" in sentence


@pytest.mark.skipif(not packages.available(), reason=packages.INSTALL)
def test_photos_get_pretrained_networks(photos: Path) -> None:
    found, sentence = chosen(recipe(photos))
    best = packages.available()[-1]
    assert (found.teacher.model, found.teacher.weights, found.teacher.new_head) == (best.model, best.weights, True)
    assert found.student.model == "tf_efficientnet_lite0@blocks.3"
    assert found.student.weights == "package:efficientnet_lite0"
    assert found.student.size == found.data.size == 128 and found.train.lr == 0.0005
    assert "photos (median short side 70 pixels)" in sentence and best.weights in sentence
    own = chosen(recipe(photos, student={"model": "builtin:cnn"}, data={"path": str(photos), "size": 64})).recipe
    assert own.student.model == "builtin:cnn" and own.teacher.model == best.model
    assert own.data.size == 64 and own.train.lr == TrainConfig().lr


def test_without_packages_and_network_photos_still_get_no_mlp(photos: Path, monkeypatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    found, sentence = chosen(recipe(photos))
    assert (found.teacher.model, found.student.model) == ("builtin:resnet20-cifar", "builtin:small-cnn")
    assert "pip install 'potstill[weights]'" in sentence


def test_what_is_named_stays() -> None:
    named = recipe("nowhere", teacher={"model": "builtin:cnn"}, student={"model": "builtin:mlp"})
    assert chosen(named) == (named, "")
    members = recipe("digits", teacher={"ensemble": [{"model": "builtin:cnn"}, {"model": "builtin:mlp"}]})
    assert chosen(members).recipe.teacher == members.teacher


def test_weights_without_a_name_are_told() -> None:
    with pytest.raises(ConfigError, match="teacher.weights is given without teacher.model") as caught:
        potstill.distill("digits", teacher_weights="w.pth", student={"options": {"hidden": 3}})
    assert "student.options is given without student.model" in str(caught.value)


# Views


def test_views_cost_as_much_as_a_training() -> None:
    large, small = (zoo.create("builtin:small-cnn", classes=AB, options={"width": w}) for w in (32, 8))
    ratio = _macs(small) / _macs(large)
    assert affordable_views(large, small, 100) == round(300 * ratio) < 100
    assert affordable_views(small, large, 100) > 100  # no bound: one view per epoch
    assert affordable_views(large, small, 3) == 4
    large, small = (zoo.create("builtin:small-cnn", classes=AB, options={"width": w}, size=(64, 64)) for w in (32, 8))
    assert affordable_views(large, small, 1000) == 4 and affordable_views(large, small, 2) == 2


def _macs(model: zoo.Classifier) -> int:
    import torch

    return cost(model.network, torch.zeros(1, 3, 32, 32)).total_macs


@pytest.mark.parametrize(
    ("views", "terms", "expected"),
    [(None, [], 4), (7, [], 7), (None, [{"loss": "feature_mse", "on": ["stage:-1"], "weight": 1}], None)],
)
def test_the_default_number_of_views_is_bounded(tmp_path: Path, views, terms, expected) -> None:
    data = dataset.prepare(DataConfig(path="digits", limit=60))
    settings = {"student": {"model": "builtin:small-cnn", "options": {"width": 4}}, "views": views}
    setup = train.setup_of(recipe("digits", **settings, train={"epochs": 9}))
    wide = {"model": "builtin:small-cnn", "options": {"width": 16}, "train": {"epochs": 1}}
    config = recipe("digits", teacher=wide).teacher
    teacher = prepare_teacher(config, data, tmp_path, views=Views("none"), seed=0)
    terms = recipe("digits", objective={"terms": terms}).objective.loss_terms
    assert train.within_views(setup, teacher, data, terms, stored=True, seed=0).views.count == expected
    assert any("4 views of each image, by the teacher's cost" in note for note in progress.display().notes) == (
        expected == 4
    )


def test_a_new_head_is_fitted_to_weights_of_other_classes(photos: Path, tmp_path: Path) -> None:
    data = dataset.prepare(DataConfig(path=str(photos), size=32))
    card = {"mean": MEAN, "std": STD, "size": [48, 48]}
    weights = str(write_weights(tmp_path / "w.safetensors", classes=7))
    given = {"model": "resnet18@layer2", "options": OPTIONS, "weights": weights, "card": card, "new_head": True}
    config = recipe(photos, teacher=given).teacher
    teacher = prepare_teacher(config, data, tmp_path / "teacher", views=Views(), seed=0)
    assert teacher.network is not None and teacher.card.classes == AB
    assert teacher.card.crop == (48, 48) and data.crop == (32, 32)  # larger pixels of the same photos
    assert teacher.record["validation_accuracy"]["last"] == 100
    again = prepare_teacher(config, data, tmp_path / "teacher", views=Views(), seed=0)
    assert again.identity == teacher.identity


@pytest.mark.parametrize(("size", "told"), [(None, True), (16, False)])
def test_small_images_that_one_photo_makes_large_are_told(tmp_path: Path, size: int | None, told: bool) -> None:
    random = np.random.default_rng(0)
    for number in range(20):
        file, side = tmp_path / "train" / "ab"[number % 2] / f"{number}.png", 90 if number == 0 else 8
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file)
    dataset.prepare(DataConfig(path=str(tmp_path), size=size))
    assert any("are 8 x 8 pixels, but not all" in note for note in progress.display().notes) == told


@pytest.mark.parametrize(("batch", "epochs", "told"), [
    (128, 3, "12 optimizer steps, too few"), (128, 3, "(--batch-size 32) or more"), (32, 3, "weights. More --epochs"),
    (32, 60, ""),
])  # fmt: skip
def test_a_student_with_few_steps_is_told(batch: int, epochs: int, told: str) -> None:
    data = dataset.prepare(DataConfig(path="digits", limit=600))
    student = {"model": "builtin:small-cnn"}
    train.warn_of_budget(recipe("digits", student=student, train={"batch_size": batch, "epochs": epochs}), data)
    notes = [note for note in progress.display().notes if "optimizer steps" in note]
    assert all(told in note for note in notes) and bool(notes) == bool(told)


def test_views_that_are_the_image_itself_are_one() -> None:
    assert Views("none", 10).number(30) == Views("none").number(30) == 1
    assert Views("none", 10, mix="mixup").number(30) == Views("shift", 10).number(30) == 10
    assert Views("none", fresh=True).number(30) is None
