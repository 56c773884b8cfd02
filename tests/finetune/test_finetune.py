"""The whole transfer on a small world: one folder that teaches, is evaluated, and never is worse than its probe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import potstill
from potstill import artifacts, words
from potstill.config import build
from potstill.errors import ConfigError, RunError
from potstill.model_files.folder import load_model, read_card, save_model
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.freeze import bits
from potstill.report import write_report
from potstill.report.commands import next_steps
from potstill.stages import dataset
from potstill.stages.finetune import FinetuneConfig, finetune, run
from potstill.stages.finetune.backbone import backbone
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.probe import Probe
from potstill.stages.recipe import Recipe
from potstill.stages.teacher.prepare import prepare_teacher, teacher_size
from potstill.stages.test_split import clean_logits
from tests.conftest import ROOT
from tests.finetune.world import MEAN, SIDE, STD, settings
from tests.report.test_report import Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tree: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("transfer") / "run"
    return folder, finetune(settings(tree, weights, unfreeze=1), folder, command="potstill finetune x")


def test_the_summary_holds_what_happened(done) -> None:
    folder, summary = done
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["kind"] == "finetune" and summary["command"] == "potstill finetune x"
    assert set(summary["models"]) == {"probe", "tuned"}
    assert summary["choice"]["kept"] == summary["kept"]
    assert summary["choice"]["sentence"] in summary["notes"]
    assert summary["card"]["classes"] == ["circle", "cross", "stripes"]
    assert ["features", "probe", "tuning", "evaluation"] == [part["name"] for part in summary["stages"]]
    text = (ROOT / "docs" / "summary.md").read_text(encoding="utf-8")
    told = [*summary, *summary["choice"], *summary["tuning"], *summary["probe"], *summary["models"]["probe"]]
    assert not [key for key in told if f"`{key}" not in text and key != "inputs"]


def test_the_figures_are_those_of_the_saved_models(done, tree: Path) -> None:
    """The probe's come from stored features; here its saved network looks at the pixels."""
    folder, summary = done
    images = Images(settings(tree, None).data)
    rows = images.manifest.rows("test")
    for name in ("probe", "tuned"):
        logits = clean_logits(load_model(folder / name), images.data, rows)
        right = logits.argmax(1) == images.manifest.label[rows]
        assert summary["models"][name]["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-3)
    kept, same = load_model(folder), load_model(folder / summary["kept"])
    assert bits(kept) == bits(same)


def test_the_folder_is_a_teacher_and_can_be_evaluated(done, tree: Path, tmp_path: Path) -> None:
    folder, summary = done
    assert bits(find(str(folder))) == bits(load_model(folder))
    found = potstill.evaluate(folder, tree)
    assert found.accuracy == pytest.approx(summary["models"][summary["kept"]]["accuracy"], abs=1e-3)
    recipe = build(Recipe, {"data": {"path": str(tree)}, "teacher": {"model": str(folder)}})
    images = dataset.prepare(recipe.data, at_least=teacher_size(recipe.teacher))
    teacher = prepare_teacher(recipe.teacher, images, tmp_path, views=recipe.training_views, seed=0)
    assert teacher.card.weights_sha256 == read_card(folder).weights_sha256
    assert teacher.identity == bits(load_model(folder))


def test_the_probe_is_kept_where_fine_tuning_is_no_better(tree: Path, weights: Path, tmp_path: Path) -> None:
    ruined = finetune(settings(tree, weights, unfreeze="all", train={"lr": 0.5, "epochs": 1}), tmp_path / "run")
    assert ruined["kept"] == "probe" and "Kept the linear probe" in ruined["choice"]["sentence"]
    assert bits(load_model(tmp_path / "run")) == bits(load_model(tmp_path / "run" / "probe"))


def test_fine_tuning_is_kept_where_it_is_better(
    tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe is always wrong, so anything beats it."""
    monkeypatch.setattr(Probe, "logits", lambda self, features, rows: wrong(tree, rows))
    summary = finetune(settings(tree, weights, train={"epochs": 1}), tmp_path / "run")
    assert summary["kept"] == "tuned" and summary["choice"]["difference"] > summary["choice"]["standard_error"]
    assert bits(load_model(tmp_path / "run")) == bits(load_model(tmp_path / "run" / "tuned"))


def wrong(tree: Path, rows: np.ndarray) -> np.ndarray:
    label = Images(settings(tree, None).data).manifest.label[rows]
    return np.eye(3, dtype=np.float32)[(label + 1) % 3]


def test_the_page_says_what_was_kept_and_why(done) -> None:
    folder, summary = done
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert {"effect", "models", "gains", "recall", "confusion", "probe", "tuning", "steps", "data"} <= set(
        page.sections()
    )
    assert summary["choice"]["sentence"].partition(": fine-")[2] in page.text
    for figures in summary["models"].values():
        assert words.percent(figures["accuracy"]).replace(words.NBSP, " ") in page.text
    assert summary["tuning"]["frozen_bits"][:12] in page.text
    assert "21 kept their statistics" in page.text and page.count("svg") == 5


def test_the_page_of_a_probe_and_of_a_training_from_scratch(tree: Path, weights: Path, tmp_path: Path) -> None:
    finetune(settings(tree, weights, unfreeze="none", views=0, penalty=0.01), tmp_path / "probe")
    page = Page(write_report(tmp_path / "probe").read_text(encoding="utf-8"))
    assert "tuning" not in page.sections() and "Linear probe" in page.text and page.count("svg") == 2
    finetune(settings(tree, None, from_scratch=True, train={"epochs": 1}), tmp_path / "scratch")
    page = Page(write_report(tmp_path / "scratch").read_text(encoding="utf-8"))
    assert "probe" not in page.sections() and "all layers, from random weights" in page.text


def test_from_scratch_needs_no_weights(tree: Path, tmp_path: Path) -> None:
    summary = finetune(settings(tree, None, from_scratch=True, augment="none", train={"epochs": 1}), tmp_path / "run")
    assert summary["probe"] is None and summary["kept"] == "tuned"
    assert summary["card"]["source"] == "random initialisation"


def test_features_from_below_give_a_smaller_model(tree: Path, weights: Path, tmp_path: Path) -> None:
    config = settings(tree, weights, features="stage:2", unfreeze="all", train={"epochs": 1})
    summary = finetune(config, tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    assert loaded.card.model == "cut:resnet18"
    assert summary["models"]["tuned"]["parameters"] == zoo.count_parameters(loaded) < 30_000
    assert torch.isfinite(loaded(torch.rand(1, 3, 32, 32)).logits).all()


def test_a_transfer_from_a_transfer(done, tree: Path, tmp_path: Path) -> None:
    folder, _ = done
    summary = finetune(settings(tree, None, model=str(folder), options={}, unfreeze="none"), tmp_path / "again")
    assert summary["card"]["model"] == "resnet18"


def test_asked_twice_it_answers_from_the_folder_and_others_are_refused(
    done, tree: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, summary = done
    monkeypatch.setattr(run, "backbone", lambda *_: pytest.fail("it did the work again"))
    assert finetune(settings(tree, weights, unfreeze=1), folder) == summary
    with pytest.raises(RunError, match="other settings"):
        finetune(settings(tree, weights, unfreeze=2), folder)


def test_a_killed_transfer_goes_on_to_the_same_result(
    done, tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, summary = done

    class Killed(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run._Transfer, "_evaluate", dies)
        finetune(settings(tree, weights, unfreeze=1), tmp_path / "run")
    assert artifacts.finished(tmp_path / "run") is None
    again = finetune(settings(tree, weights, unfreeze=1), tmp_path / "run")
    assert bits(load_model(tmp_path / "run")) == bits(load_model(folder))
    assert again["models"] == summary["models"]


def test_the_test_split_is_not_used_to_choose(done, tree: Path, weights: Path, tmp_path: Path) -> None:
    """With other test labels every choice is the same."""
    folder, summary = done
    images = Images(settings(tree, weights).data)
    assert summary["choice"]["images"] == len(images.manifest.rows("validation"))
    assert len(np.intersect1d(images.manifest.rows("validation"), images.manifest.rows("test"))) == 0


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
    assert not [key for key in FinetuneConfig.model_fields if f"`{key}`" not in text]


def test_a_transfer_is_evaluated_on_the_split_it_held_out(weights: Path, tree: Path, tmp_path: Path) -> None:
    """Without a test split in the data, other settings of the splits would put training images into the test."""
    shutil.copytree(tree / "train", tmp_path / "images")
    config = settings(tmp_path / "images", weights, unfreeze="none", views=0, data={"test": 0.3, "seed": 5})
    summary = finetune(config, tmp_path / "run")
    found = potstill.evaluate(tmp_path / "run", tmp_path / "images")
    assert found.images == summary["data"]["splits"]["test"]
    assert found.accuracy == pytest.approx(summary["models"]["probe"]["accuracy"], abs=1e-3)


def test_of_several_models_the_best_probe_is_kept(tree: Path, weights: Path, tmp_path: Path) -> None:
    """A network of noise and the pretrained one: the choice is that of the cross-validated accuracies."""
    good, poor = tmp_path / "good", tmp_path / "poor"
    made = backbone(settings(tree, weights), Images(settings(tree, weights).data, SIDE))
    save_model(made, good)
    with torch.no_grad():
        made.network.conv1.weight.zero_()  # every image is the same to it
    save_model(made, poor)
    models = [str(poor), str(good)]
    several = build(
        FinetuneConfig, {"data": {"path": str(tree), "size": SIDE}, "model": models, "views": 0, "unfreeze": "none"}
    )
    told = finetune(several, tmp_path / "out")
    first, second = told["candidates"]
    assert [first["model"], second["model"]] == models and second["accuracy"] > first["accuracy"] + 20
    assert second["interval"][0] < second["accuracy"] < second["interval"][1]
    assert second["images"] == told["data"]["splits"]["train"]
    assert any(f"Kept {good} of 2 networks" in note for note in told["notes"])
    assert bits(load_model(tmp_path / "out").network.conv1) == bits(load_model(good).network.conv1)
    steps = dict(next_steps(told, tmp_path / "out"))
    again = steps["If the images are unlike photographs, an earlier layer may transfer better:"]
    assert again == f"potstill finetune {tree} --model {good} --size {SIDE} --features auto"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": "w.pth"}, "has several models, and weights"),
        ({"options": {"depth": 3}, "penalty": 0.1}, "and options, penalty, which one network has"),
        ({"model": ["resnet18", "resnet18"]}, "must be different names"),
    ],
)
def test_what_belongs_to_one_of_several_models_is_refused(changes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build(FinetuneConfig, {"data": {"path": "x"}, "model": ["resnet18", "resnet34"], **changes})


def test_the_next_step_repeats_what_the_weights_need() -> None:
    config = build(
        FinetuneConfig,
        {
            "data": {"path": "my photos", "size": 96},
            "model": "resnet18",
            "weights": "a b.pth",
            "mean": MEAN,
            "std": STD,
        },
    )
    summary = {"kind": "finetune", "recipe": config.to_json(), "data": {"source": "my photos"}}
    commands = [command for _, command in next_steps(summary, Path("out"))]
    assert commands[0] == "potstill distill 'my photos' --teacher out"
    assert commands[2] == (
        "potstill finetune 'my photos' --model resnet18 --weights 'a b.pth' --mean 0.485,0.456,0.406 "
        "--std 0.229,0.224,0.225 --size 96 --features auto"
    )
    assert build(FinetuneConfig, {"data": {"path": "x"}, "model": ["resnet18"]}).model == "resnet18"


def test_next_steps_only_where_they_can_be_carried_out() -> None:
    def steps(kind: str, **recipe: Any) -> list[str]:
        ship = {"file": "a.onnx"}
        summary = {"kind": kind, "recipe": {"data": {}, **recipe}, "data": {"source": "x"}, "ship": ship}
        return [command for _, command in next_steps(summary, Path("out"))]

    labels = "potstill distill x --teacher out"
    assert steps("label", augment="auto", seed=0) == [labels]
    assert steps("label", augment="none", seed=3) == [f"{labels} --augment none --seed 3"]
    assert steps("quantize", activation_bits=4) == ["potstill evaluate out/a.onnx x"]
    assert steps("quantize", activation_bits=8)[1:] == ["potstill export out"]
    config = build(FinetuneConfig, {"data": {"path": "x"}, "model": "builtin:cnn", "from_scratch": True}).to_json()
    assert steps("finetune", **config) == []
    assert steps("finetune", **{**config, "model": "resnet18"}) == ["potstill finetune x --model resnet18"]
