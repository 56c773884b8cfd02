"""Pruning a model from its folder to its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from potstill import config
from potstill.compress.prune import sparsity_of
from potstill.errors import UserError
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.stages.compress import prune as stage
from potstill.stages.compress.prune import MODEL, PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.inference.evaluate import evaluate

pytestmark = pytest.mark.slow

DATA = {"path": "digits"}
TRAIN = {"epochs": 2, "precision": "fp32", "optimizer": "sgd", "lr": 0.02, "weight_decay": 0.0001, "batch_size": 64}


@pytest.fixture
def unexported(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the file of the whole network in place of every export: for tests that do not look at the files."""
    monkeypatch.setattr(stage, "export_onnx", lambda model, file, input: shutil.copy(exported, file))
    monkeypatch.setattr(stage.gate, "check_float", lambda *_: None)  # which would refuse that file


def settings(model: Path, **more: object) -> PruneConfig:
    given = {"model": str(model), "data": DATA, "calibration": 128, "train": TRAIN, "augment": "none"}
    return config.build(PruneConfig, {**given, **more})


@pytest.fixture(scope="module")
def half(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("half") / "out"
    return folder, prune(settings(trained, keep=0.6, rounds=2, importance="taylor", sensitivity=True), folder)


def test_half_the_work_remains_and_most_of_the_accuracy(half: tuple[Path, dict]) -> None:
    _, summary = half
    before, after = summary["models"]["original"], summary["models"]["pruned"]
    assert 0.4 * before["macs"] < after["macs"] <= 0.6 * before["macs"]
    assert after["parameters"] < before["parameters"] and after["bytes"] < before["bytes"]
    # Over 20 seeds (28 November 2026): 1.5 points lost on average, 3.0 at most; a round regains 12.7 at least.
    assert after["accuracy"] > before["accuracy"] - 8
    for row in summary["rounds"]:
        assert row["validation_accuracy"]["last"] >= row["validation_pruned"]
    assert all(set(shares) == {0.25, 0.5, 0.75} for shares in summary["sensitivity"].values())
    assert len(summary["sensitivity"]) == 3  # a group inside each block


def test_the_pruned_folder_is_an_ordinary_model(half: tuple[Path, dict]) -> None:
    folder, summary = half
    for model in (folder, folder / MODEL):
        found = evaluate(str(model), "digits", weights=None, split="test", limit=None)
        assert found["accuracy"] == pytest.approx(summary["models"]["pruned"]["accuracy"], abs=0.01)
    model = load_model(folder)
    assert model.card.compressed["pruned"]["keep"] == 0.6
    model.train()
    model(torch.rand(2, 1, 8, 8)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_pruned_model_is_quantized_and_remembers_both(half: tuple[Path, dict], tmp_path: Path) -> None:
    folder, summary = half
    given = config.build(QuantizeConfig, {"model": str(folder), "data": DATA, "calibration": 128})
    told = quantize(given, tmp_path / "out")
    assert told["models"]["original"]["accuracy"] == summary["models"]["pruned"]["accuracy"]
    assert abs(told["models"]["packed"]["lost"]) < 2
    assert set(load_model(tmp_path / "out").card.compressed) == {"pruned", "quantized"}


@pytest.mark.usefixtures("unexported")
def test_masks_leave_zeros_and_say_so(trained: Path, tmp_path: Path) -> None:
    summary = prune(settings(trained, keep=0.5, structure="unstructured"), tmp_path / "out")
    assert 0.45 < sparsity_of(load_model(tmp_path / "out").network) < 0.55
    assert summary["models"]["pruned"]["macs"] == summary["models"]["original"]["macs"]
    assert any("inference is not faster" in note for note in summary["notes"])


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    "aim", [{"max_macs": 30_000}, {"max_params": 3_000}, {"max_bytes": 12_000}], ids=lambda aim: next(iter(aim))
)
def test_targets_in_numbers_are_met(trained: Path, tmp_path: Path, aim: dict) -> None:
    summary = prune(settings(trained, images=64, **aim), tmp_path / "out")
    after, (name, most) = summary["models"]["pruned"], next(iter(aim.items()))
    found = {"max_macs": after["macs"], "max_params": after["parameters"], "max_bytes": 4 * after["parameters"]}[name]
    assert 0.8 * most < found <= most


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "Give exactly one of --keep"),
        ({"keep": 0.5, "max_params": 10}, "2 are set"),
        ({"max_params": 10**9}, "nothing to prune"),
        ({"keep": 0.001}, "keeps at least"),
    ],
)
def test_impossible_targets_are_refused(trained: Path, tmp_path: Path, wrong: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        prune(settings(trained, **wrong), tmp_path / "out")


def test_settings_that_contradict_each_other_are_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="importance must be l1 or l2"):
        settings(trained, keep=0.5, structure="all", importance="bn")
    with pytest.raises(UserError, match="which is pruned once"):
        settings(trained, keep=0.5, structure="unstructured", rounds=2)


def test_channels_of_residual_sums_go_too(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    options = {"channels": (8, 16, 24, 32), "stem_width": 8}
    whole = zoo.create("resnet18", classes=[str(d) for d in range(10)], size=(32, 32), options=options)
    save_model(whole.with_card(whole.card.replace(crop=(8, 8), resize=8)), tmp_path / "whole")
    given = settings(tmp_path / "whole", keep=0.5, structure="all", images=64, data={**DATA, "limit": 300})
    summary = prune(given, tmp_path / "out")
    before, after = summary["models"]["original"], summary["models"]["pruned"]
    assert 0.25 * before["macs"] < after["macs"] <= 0.5 * before["macs"] and after["bytes"] < 0.7 * before["bytes"]
    assert load_model(tmp_path / "out").network.layer1[0].conv2.out_channels < 8  # it writes into a residual sum
    assert evaluate(str(tmp_path / "out"), "digits", weights=None, split="test", limit=None)["images"] > 0


def test_shortcuts_that_torch_pruning_cannot_narrow_are_told(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    with pytest.raises(UserError, match="prune inner channels only"):
        prune(settings(trained, keep=0.5, structure="all"), tmp_path / "out")
