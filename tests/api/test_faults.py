"""What users met: settings that reset others, folders claimed by a failed start, notes of another run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import potstill
from potstill import config, progress
from potstill.cli import app
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import recorded_data
from tests.finetune.world import MEAN, OPTIONS, SIDE, STD, write_tree, write_weights

pytestmark = pytest.mark.slow


def typed(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def recorded(folder: Path, kind: str) -> dict[str, Any]:
    return yaml.safe_load((folder / f"{kind}.yaml").read_text())


def test_epochs_and_rate_of_quantization_aware_training_can_be_given(run: potstill.RunResult, tmp_path: Path) -> None:
    typed("quantize", run.folder, "--mode", "qat", "--weight-bits", 4, "--epochs", 1, "--lr", 0.001, "--out", tmp_path)
    train = recorded(tmp_path, "quantize")["train"]
    assert (train["optimizer"], train["weight_decay"], train["epochs"], train["lr"]) == ("adamw", 0.0, 1, 0.001)
    assert recorded(tmp_path, "quantize")["objective"]["temperature"] == 4


def test_epochs_of_pruning_keep_its_optimizer(run: potstill.RunResult, tmp_path: Path) -> None:
    result = potstill.prune(run.folder, keep=0.7, epochs=1, objective={"alpha": 0.5}, out=tmp_path)
    train, objective = recorded(tmp_path, "prune")["train"], recorded(tmp_path, "prune")["objective"]
    assert (train["optimizer"], train["lr"], train["weight_decay"]) == ("sgd", 0.02, 0.0001)
    assert (objective["alpha"], objective["temperature"]) == (0.5, 4)
    assert result.summary["rounds"][0]["steps"] > 0


def test_a_part_of_a_recipes_objective_keeps_the_rest(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {path: digits}\nobjective: {temperature: 4}\nteacher: {train: {lr: 0.5}}\n")
    typed("run", recipe, "objective.alpha=0.5", "train.epochs=none", "--out", tmp_path / "run", code=2)
    built = config.build(Recipe, config.override(config.read_yaml(recipe), ["objective.alpha=0.5"]))
    assert (built.objective.temperature, built.objective.alpha) == (4, 0.5)
    assert (built.teacher.train.epochs, built.teacher.train.lr) == (10, 0.5)


def test_notes_of_one_call_stay_out_of_the_next(run: potstill.RunResult, tmp_path: Path) -> None:
    with progress.use(progress.Display()):  # one display, as in a long Python session
        first = potstill.label("digits", teacher=run.folder, limit=80, top_k=99, out=tmp_path / "a")
        second = potstill.label("digits", teacher=run.folder, limit=80, out=tmp_path / "b")
    about_classes = [note for note in first.notes if "10 classes" in note]
    assert about_classes and not set(about_classes) & set(second.notes)


def test_soft_labels_are_written_once(run: potstill.RunResult, tmp_path: Path) -> None:
    potstill.label("digits", teacher=run.folder, limit=80, out=tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["kind"] == "label"
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    again = potstill.label("digits", teacher=run.folder, limit=80, out=tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert again.summary["labels"]["images"] > 0


def test_the_command_works_with_what_its_message_asked_for(tmp_path: Path) -> None:
    tree, weights = write_tree(tmp_path / "my photos [1]", 60), write_weights(tmp_path / "w.safetensors")
    folder = tmp_path / "out"
    plain = {"model": "resnet18", "options": OPTIONS, "weights": weights, "views": 0, "epochs": 1, "unfreeze": "none"}
    with pytest.raises(potstill.UserError, match="--mean .* --std .* --size"):
        potstill.finetune(tree, out=folder, **plain)
    assert not folder.exists()
    result = potstill.finetune(tree, out=folder, mean=MEAN, std=STD, size=SIDE, **plain)
    assert (folder / "manifest.json").is_file() and result.folder == folder


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["prune", "{run}"], "Give exactly one of --keep"),
        (["prune", "{run}", "--keep", "1.5"], "keep"),
        (["quantize", "{run}", "--data", "nowhere"], "nowhere"),
        (["export", "{run}", "--to", "onnxx"], "to"),
        (["finetune", "digits", "--model", "resnet18", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["distill", "digits", "--teacher", "builtin:nothing"], "builtin:nothing"),
        (["label", "nowhere", "--teacher", "builtin:cnn"], "nowhere"),
    ],
)
def test_a_start_that_fails_leaves_nothing(
    run: potstill.RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = typed(*(word.format(run=run.folder) for word in words), code=2)
    assert why in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_counts_have_their_plural_and_bytes_their_unit(run: potstill.RunResult) -> None:
    shown = " ".join([repr(run), *run.notes, *(part["title"] for part in run.summary["stages"])])
    assert not re.findall(r"\b1 (?!is|pass\b)\w+s\b(?<!class)(?<!pass)", shown), shown
    assert "0.0 MB" not in shown and "(s)" not in shown


def test_a_folder_knows_the_images_it_was_trained_on(run: potstill.RunResult, tmp_path: Path) -> None:
    """Of a run, of a stage inside it, of a compressed model: the commands that are printed need no --data."""
    label = potstill.label("digits", teacher=run.folder, limit=80, out=tmp_path / "label")
    assert recorded_data(label.folder)["limit"] == 80
    assert recorded_data(run.folder / "distill" / "seed-0") == recorded_data(run.folder)
    smaller = potstill.prune(run.folder / "distill" / "seed-0", keep=0.7, images=32, out=tmp_path / "small")
    again = potstill.quantize(smaller.folder, weight_bits=4, out=tmp_path / "again")
    assert again.summary["data"]["fingerprint"] == run.summary["data"]["fingerprint"]
    (tmp_path / "recipe.yaml").write_text("data: {path: elsewhere}\n")  # beside a model, but not of a run
    assert recorded_data(tmp_path / "model") is None
