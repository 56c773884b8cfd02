"""The command line by hand: wrong input gets sentences and exit 2, never a traceback or a run that looks finished."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from potstill import artifacts
from potstill.cli import app
from potstill.model_files.folder import save_model
from tests.test_road import write_tree

PROGRESS = re.compile(r": [\d,]+ of [\d,]+ in [\d.]+ s")
FAST = ["--teacher-epochs", "1", "--epochs", "1", "--seeds", "1"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "images", size=8, count=90)


def refused(*words: str | Path, told: str, out: Path | None = None) -> str:
    """Run a command that must fail; return what it told."""
    result = CliRunner().invoke(app, [str(word) for word in words] + (["--out", str(out)] if out else []))
    assert_refused(result, told)
    assert out is None or artifacts.finished(out) is None
    return result.stderr


def assert_refused(result: Result, told: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output and result.stdout == ""
    assert told in result.output, result.output
    lines = [line for line in result.stderr.splitlines() if line and line[0] != " "]
    assert all(line.startswith(("error: ", "note: ")) or PROGRESS.search(line) for line in lines)


def test_no_such_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    refused("distill", tmp_path / "imagse", told="Did you mean", out=tmp_path / "run")


@pytest.mark.parametrize(("typed", "told"), [
    (["shrink", "x", "--max-bytes", "-4", "--minutes", "0"], ["error: --max-bytes: '-4'", "error: --minutes: '0'"]),
    (["distill", "digits", "--epochs", "0"], ["error: --epochs: must be greater than or equal to 1, but was 0."]),
    (["export", "x", "--to", "foo"], ["error: --to: must be 'onnx', "]),
    (["prune", "x", "--keep", "3"], ["error: --keep: must be less than 1"]),
])  # fmt: skip
def test_a_wrong_flag_is_named_as_it_was_typed(typed: list[str], told: list[str]) -> None:
    text = refused(*typed, told="error: ")
    assert all(one in text for one in told)


def test_one_class_only(tree: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("cross", "stripes"):
            shutil.rmtree(tree / split / name)
    refused("distill", tree, told="one class", out=tmp_path / "run")


def test_an_empty_class(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "square").mkdir()
    refused("distill", tree, told="square", out=tmp_path / "run")


def test_a_class_in_test_that_is_not_in_train(tree: Path, tmp_path: Path) -> None:
    (tree / "test" / "square").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tree / "test" / "square" / "x.png")
    refused("distill", tree, told="square", out=tmp_path / "run")


def test_unreadable_images(tree: Path, tmp_path: Path) -> None:
    for file in list((tree / "train" / "cross").iterdir())[:10]:
        file.write_bytes(b"<html>not found</html>")
    refused("distill", tree, told=".png", out=tmp_path / "run")


def test_a_teacher_of_other_classes(tree: Path, tmp_path: Path) -> None:
    from potstill.models import zoo

    save_model(zoo.create("builtin:cnn", classes=list("abcd"), size=(8, 8), channels=3), tmp_path / "teacher")
    told = refused("distill", tree, "--teacher", tmp_path / "teacher", told="name their classes", out=tmp_path / "run")
    assert "0 of 3 data classes match one of its 4" in told and "class_map" in told


def test_a_folder_that_holds_something_else(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    refused("distill", tree, told="exists and has other contents", out=tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_wrong_recipe_tells_all_its_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {path: digits}\nsedes: 3\ntrain: {epochs: 0, lr: fast}\nstudent: {labels: many}\n")
    told = refused("run", file, "objective.alpha=2", told="Did you mean 'seeds'?", out=tmp_path / "run")
    assert len(told.splitlines()) == 5 and not (tmp_path / "run").exists()


def test_unknown_models_and_losses(tree: Path, tmp_path: Path) -> None:
    refused("distill", tree, "--student", "builtin:mpl", told="builtin:mlp", out=tmp_path / "run")
    refused("distill", tree, "--loss", "kdd", told="Did you mean", out=tmp_path / "other")


def test_weights_that_are_not_there(tree: Path, tmp_path: Path) -> None:
    refused("evaluate", "builtin:cnn", tree, told="--weights")
    refused("evaluate", "builtin:cnn", tree, "--weights", tmp_path / "no.safetensors", told="no.safetensors")
    refused("predict", tmp_path, tree / "x.png", told="holds no saved model")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result, Result]:
    """A tree, the folder of a run whose disk filled up, what was told then, and what the same command told later."""
    folder = tmp_path_factory.mktemp("filled")
    tree, run = write_tree(folder / "images", size=8, count=90), folder / "run"
    command = ["distill", str(tree), *FAST, "--json", "--out", str(run)]
    fsync, calls = os.fsync, []

    def full(number: int) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        told = CliRunner().invoke(app, command)
        left = list(run.rglob("*.tmp"))
        assert not left and artifacts.finished(run) is None
    return tree, run, told, CliRunner().invoke(app, command)


@pytest.mark.slow
def test_the_disk_fills_up(filled: tuple[Path, Path, Result, Result]) -> None:
    _, run, told, again = filled
    assert_refused(told, "The disk is full")
    assert again.exit_code == 0, again.output
    assert artifacts.finished(run) is not None


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "potstill", "distill", str(tree), "--epochs", "5000", "--seeds", "1"]
    command += ["--teacher-epochs", "1", "--out", str(tmp_path / "run")]
    # A shell that starts the tests in its background ignores SIGINT for all of them; a user's shell does not.
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listens)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "control").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=60)
    assert told.startswith("Loading PyTorch\n")
    assert child.returncode == 130 and "Resume with the same command" in told and "Traceback" not in told
    assert f"--out {tmp_path / 'run'}" in told
    assert artifacts.finished(tmp_path / "run") is None


@pytest.mark.slow
def test_json_is_all_that_stands_on_standard_output(filled: tuple[Path, Path, Result, Result]) -> None:
    tree, run, _, made = filled
    summary = json.loads(made.stdout)
    assert summary["models"]["teacher"]["accuracy"] >= 0
    measured = CliRunner().invoke(app, ["evaluate", str(run), str(tree), "--json"])
    assert json.loads(measured.stdout)["accuracy"] == summary["models"]["student"]["test_accuracy"][0]
    image = next((tree / "test" / "cross").iterdir())
    said = CliRunner().invoke(app, ["predict", str(run), str(image), "--json"])
    assert json.loads(said.stdout)[0]["class"] in ("circle", "cross", "stripes")
