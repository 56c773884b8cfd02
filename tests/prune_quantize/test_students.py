"""Students that are no plain network: one that borrowed its teacher's classifier, and one that was pruned before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from potstill import config
from potstill.compress.prune import inner_channels
from potstill.errors import UserError
from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.inspect import taps
from potstill.models.outputs import Classifier
from potstill.models.shared_head import reuse_head
from potstill.stages import dataset
from potstill.stages.compress.prune import MODEL, PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.recipe import DataConfig, Recipe

pytestmark = pytest.mark.slow

DATA = {"path": "digits", "limit": 300}


@pytest.fixture(scope="module")
def digits() -> Data:
    return dataset.prepare(DataConfig(**DATA))


@pytest.fixture(scope="module")
def borrowed(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a SimKD student: a small CNN, a projector, and the last layer of a wider one."""
    student, teacher = (digits.model("builtin:small-cnn", options={"width": width}).eval() for width in (8, 12))
    (on,), (there,) = (taps.resolve(model, ["stage:-1"]) for model in (student, teacher))
    folder = tmp_path_factory.mktemp("borrowed")
    save_model(reuse_head(student, on, teacher, there), folder)
    return folder


def config_of(kind: type, model: Path, **more: Any) -> Any:
    given = {"model": str(model), "data": DATA, "calibration": 64, "teacher": "none"}
    return config.build(kind, {**given, **more})


def test_a_student_with_a_borrowed_classifier_is_pruned_and_quantized(borrowed: Path, tmp_path: Path) -> None:
    train = {"epochs": 1, "optimizer": "sgd", "lr": 0.001, "weight_decay": 0}
    told = prune(config_of(PruneConfig, borrowed, keep=0.6, train=train, images=64), tmp_path / "pruned")
    before, after = told["models"]["original"], told["models"]["pruned"]
    assert after["macs"] <= 0.6 * before["macs"] and after["bytes"] < before["bytes"]
    pruned = load_model(tmp_path / "pruned")
    assert pruned.card.model.startswith("reused:")
    nearest = config_of(QuantizeConfig, tmp_path / "pruned", rounding="nearest")  # reconstruction takes half a minute
    told = quantize(nearest, tmp_path / "int8")
    for name in ("packed", "onnx"):
        assert told["models"][name]["bytes"] < 0.6 * after["bytes"] and told["models"][name]["agreement"] > 85
    image = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(tmp_path / "pruned" / MODEL)(image).logits, pruned(image).logits)


def pruned(digits: Data, folder: Path) -> Classifier:
    whole = digits.model("builtin:resnet20-cifar", options={"width": 4}).eval()
    network = inner_channels(whole.network, torch.rand(2, 1, 8, 8), keep=0.5)
    save_model(Classifier(network, whole.card.replace(compressed={"pruned": {"keep": 0.5}})), folder)
    return load_model(folder)


def recipe(student: dict[str, Any]) -> Recipe:
    return config.build(Recipe, {"data": DATA, "student": student, "teacher": {"model": "builtin:mlp"}})


def test_a_pruned_folder_is_a_student(digits: Data, tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    model = pruned(digits, folder)
    settings = recipe({"model": str(folder)})
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": 1})})
    student = train.new_student(settings.student, digits, seed=3)
    assert all(torch.equal(tensor, student.state_dict()[name]) for name, tensor in model.state_dict().items())
    terms = train.control_terms(settings.objective.loss_terms)
    trained = train.train_one(train.setup_of(settings), digits, terms, None, tmp_path / "control", 0)
    assert zoo.count_parameters(trained.load()) == zoo.count_parameters(model)
    assert trained.load().card.compressed == model.card.compressed
    again = train.train_one(train.setup_of(settings), digits, terms, None, tmp_path / "control", 0)
    assert again.record == trained.record


def test_folders_that_cannot_learn_here_are_refused(digits: Data, tmp_path: Path) -> None:
    pruned(digits, tmp_path / "pruned")
    with pytest.raises(UserError, match="has weights, options and an input size of its own"):
        train.new_student(recipe({"model": str(tmp_path / "pruned"), "options": {"width": 2}}).student, digits, 0)
    two = zoo.create("builtin:mlp", classes=("cat", "dog"), size=(8, 8), channels=1)
    save_model(two, tmp_path / "two")
    with pytest.raises(UserError, match="are cat, dog, .* and those of the data 0, 1"):
        train.new_student(recipe({"model": str(tmp_path / "two")}).student, digits, 0)
    export_onnx(two.eval(), tmp_path / "two.onnx")
    with pytest.raises(UserError, match="is the exported file .*two.onnx, which cannot be trained. Give the folder"):
        train.new_student(recipe({"model": str(tmp_path / "two.onnx")}).student, digits, 0)
