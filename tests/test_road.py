"""The whole road on a small world, and what happens when it is interrupted or asked for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import potstill
from potstill import artifacts
from potstill.data.csv_files import numbered_records
from potstill.model_files.folder import load_model
from potstill.models.freeze import bits
from tests.worlds import shapes

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 2, "batch_size": 32, "lr": 0.01}


def write_tree(folder: Path, *, size: int = 12, count: int = 150) -> Path:
    """Write the shapes as a tree of PNG files, split/class/number.png."""
    manifest = shapes(count, size=size, channels=3)
    for row in range(len(manifest)):
        split = ("train", "val", "test")[manifest.split[row]]
        target = folder / split / manifest.classes[manifest.label[row]] / f"{row}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(manifest.image(row)).save(target)
    return folder


def recipe(data: Path, **settings: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "data": {"path": str(data)},
        "teacher": {"model": "builtin:cnn", "train": TRAIN},
        "student": {"model": "builtin:mlp", "options": {"hidden": 8}, "labels": 30},
        "train": TRAIN,
        "seeds": 2,
        "export": {"calibration": 16},
        "comparisons": {"every-label": {"student.labels": None}},
    } | settings


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def done(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> potstill.RunResult:
    return potstill.run(recipe(tree), out=tmp_path_factory.mktemp("runs") / "small", command="potstill run small.yaml")


def test_the_summary_holds_every_figure(done: potstill.RunResult) -> None:
    folder = done.folder
    written = json.loads((folder / "summary.json").read_text())
    assert written["data"]["splits"] == {
        "train": 90, "validation": 30, "test": 30, "labelled": 30, "unlabelled": 60,
    }  # fmt: skip
    models = written["models"]
    assert isinstance(models["teacher"]["accuracy"], float)
    for kind in ("control", "student", "student_int8"):
        assert len(models[kind]["test_accuracy"]) == 2
        assert models[kind]["parameters"] == 12 * 12 * 3 * 8 + 8 + 8 * 3 + 3
        assert models[kind]["latency_ms"] > 0
    file = folder / "export" / "seed-0" / "model.onnx"
    assert models["student"]["bytes"] == file.stat().st_size
    assert written["verdict"]["result"] in ("BEATS", "TIES", "LOSES") and written["verdict"]["seeds"] == 2
    low, high = written["verdict"]["interval"]
    assert low <= written["verdict"]["difference"] <= high
    assert written["export"]["student"]["max_logit_difference"] < 1e-3
    assert written["export"]["student"]["agreement"] == 100.0
    assert [other["name"] for other in written["comparisons"]] == ["every-label"]
    for name in ("report.html", "student.onnx", "student_int8.onnx", "recipe.yaml", "manifest.json", "examples.json"):
        assert (folder / name).is_file(), name


def test_the_splits_are_written_for_the_user(done: potstill.RunResult) -> None:
    rows = [row for _, row in numbered_records(done.folder / "splits.csv")]
    assert list(rows[0]) == ["path", "split", "label", "group"]
    assert Counter(row["split"] for row in rows) == {"train": 90, "validation": 30, "test": 30}
    assert all(row["path"].split("/")[-2] == row["label"] for row in rows)


def test_control_and_student_start_alike_and_see_the_same(done: potstill.RunResult) -> None:
    folder = done.folder
    rows = {
        kind: json.loads((folder / kind / "seed-0" / "metrics.jsonl").read_text().splitlines()[0])
        for kind in ("control", "distill")
    }
    assert rows["control"]["step"] == rows["distill"]["step"]
    assert set(rows["control"]["train"]) == {"cross_entropy", "loss"}
    assert set(rows["distill"]["train"]) == {"cross_entropy", "kd", "loss"}


def test_the_same_command_again_changes_nothing(tree: Path, done: potstill.RunResult) -> None:
    folder = done.folder
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    again = potstill.run(recipe(tree), out=folder)
    assert again.verdict == done.verdict
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_another_recipe_is_kept_out_of_the_folder(tree: Path, done: potstill.RunResult) -> None:
    with pytest.raises(potstill.UserError, match="was made with other settings: "):
        potstill.run(recipe(tree, seed=5), out=done.folder)


def test_evaluate_says_the_same_of_every_form_of_the_student(tree: Path, done: potstill.RunResult) -> None:
    folder = done.folder
    stage = json.loads((folder / "student.json").read_text())["folder"]
    forms = [folder, folder / stage, folder / "student.onnx"]
    found = [potstill.evaluate(form, tree) for form in forms]
    assert len({one.accuracy for one in found}) == 1
    seed = int(stage.rpartition("-")[2])
    assert found[0].accuracy == done.student.test_accuracy[seed]
    assert found[0].images == 30 and found[0].interval[0] <= found[0].accuracy <= found[0].interval[1]


def test_predict_agrees_with_evaluate(tree: Path, done: potstill.RunResult) -> None:
    images = sorted((tree / "test").rglob("*.png"))
    said = potstill.predict(done.folder / "student.onnx", images)
    right = np.mean([one.class_name == Path(one.image).parent.name for one in said])
    accuracy = potstill.evaluate(done.folder / "student.onnx", tree).accuracy
    assert 100 * right == pytest.approx(accuracy, abs=1e-3)
    assert sum(said[0].top.values()) == pytest.approx(1, abs=1e-3)


def test_a_stage_folder_teaches_another_run(tree: Path, done: potstill.RunResult, tmp_path: Path) -> None:
    teacher = {"model": str(done.folder / "teacher")}
    again = potstill.run(recipe(tree, teacher=teacher, comparisons={}, seeds=1), out=tmp_path / "run")
    assert again.teacher.accuracy == done.teacher.accuracy
    assert bits(load_model(tmp_path / "run" / "control" / "seed-0")) == bits(
        load_model(done.folder / "control" / "seed-0")
    )


# The process kills itself after a checkpoint: a kill from outside may come after the short training has ended.
KILLED_IN_DISTILLATION = """
import os, signal, sys
from potstill import run
from potstill.training.loop import TrainingLoop
def saved(loop, seconds):
    loop.save()
    if loop.job.folder.parent.name == "distill" and loop.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
TrainingLoop.save_now_and_then = saved
run(sys.argv[1], out=sys.argv[2])
"""


def test_killed_in_the_middle_of_distillation_and_run_again(tree: Path, tmp_path: Path) -> None:
    settings = recipe(
        tree,
        seeds=1,
        comparisons={},
        teacher={"model": "builtin:mlp", "train": TRAIN},
        train={**TRAIN, "epochs": 40},
        export={"int8": False},
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    straight = potstill.run(file, out=tmp_path / "straight")
    command = [sys.executable, "-c", KILLED_IN_DISTILLATION, str(file), str(tmp_path / "killed")]
    killed = subprocess.run(command, env={**os.environ, "PYTHONWARNINGS": "ignore"}, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    half_way = tmp_path / "killed" / "distill" / "seed-0" / "checkpoint.safetensors"
    assert half_way.is_file() and artifacts.finished(half_way.parent) is None
    resumed = potstill.run(file, out=tmp_path / "killed")
    for kind in ("control", "distill"):
        assert bits(load_model(tmp_path / "killed" / kind / "seed-0")) == bits(
            load_model(tmp_path / "straight" / kind / "seed-0")
        )
    assert resumed.verdict == straight.verdict
