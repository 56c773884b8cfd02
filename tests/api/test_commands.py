"""The command line around the verbs: predict, bench, flags of every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import potstill
from potstill._version import __version__
from potstill.cli import app
from potstill.data.csv_files import numbered_records


def invoke(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_version() -> None:
    assert invoke("--version") == f"potstill {__version__}\n"


def test_python_m_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import runpy
    import sys

    monkeypatch.setattr(sys, "argv", ["potstill", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("potstill", run_name="__main__")
    assert capsys.readouterr().out == f"potstill {__version__}\n"


def test_help_is_whole_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in invoke("--help").partition("Commands:")[2]


def test_a_folder_of_images(run: potstill.RunResult, photos: Path, tmp_path: Path) -> None:
    found = json.loads(invoke("predict", run.folder / "student.onnx", photos, "--json"))
    assert [Path(one["image"]).name for one in found] == [f"{number}.png" for number in range(12)]
    lines = invoke("predict", run.folder, photos / "0.png", photos / "more", "--csv", tmp_path / "a.csv").splitlines()
    assert [row["path"] for _, row in numbered_records(tmp_path / "a.csv")] == [
        line.partition(":")[0] for line in lines
    ]
    assert [line.partition(":")[0] for line in lines] == [str(photos / "0.png"), str(photos / "more" / "11.png")]


def test_quiet_says_nothing_on_the_way(run: potstill.RunResult, photos: Path) -> None:
    loud = CliRunner().invoke(app, ["predict", str(run.folder), str(photos / "0.png"), "--classes", "a,b"])
    quiet = CliRunner().invoke(app, ["predict", str(run.folder), str(photos / "0.png"), "--classes", "a,b", "-q"])
    assert "--classes is ignored" in loud.stderr and quiet.stderr == "" and loud.stdout == quiet.stdout


def test_bench_of_own_files(run: potstill.RunResult) -> None:
    words = "bench", run.folder / "student.onnx", run.folder, "--data", "digits"
    found = json.loads(invoke(*words, "--batch", "1,3", "--threads", "1", "--seconds", "0.02", "--json"))
    assert [(one["batch"], one["threads"]) for one in found["timings"]] == [(1, 1), (3, 1)]
    for timing in found["timings"]:
        first, second = timing["files"]
        assert first["file"] == str(run.folder / "student.onnx") and first["ratio"] == 1
        assert second["ratio"] == pytest.approx(first["median_ms"] / second["median_ms"], rel=0.02)
        assert all(one["low_ms"] <= one["median_ms"] <= one["high_ms"] and one["runs"] >= 5 for one in timing["files"])
        assert first["images_per_second"] == pytest.approx(1000 * timing["batch"] / first["median_ms"], rel=0.02)
    exported, folder = found["accuracy"]
    assert exported["accuracy"] == folder["accuracy"] == run.student.accuracy and exported["images"] == folder["images"]
    assert exported["bytes"] == run.student.bytes


def test_bench_refuses_at_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "a.onnx", "b.onnx"])
    assert result.exit_code == 2 and "no model at a.onnx" in result.stderr and "no model at b.onnx" in result.stderr
    with pytest.raises(potstill.UserError, match="--batch needs numbers >= 1"):
        potstill.bench(tmp_path, batch=0)
    wrong = CliRunner().invoke(app, ["bench", str(tmp_path), "--batch", "one"])
    assert wrong.exit_code == 2 and "whole numbers with commas between" in wrong.stderr


def test_layers_and_models_and_explanations(run: potstill.RunResult, photos: Path) -> None:
    assert potstill.layers("builtin:mlp").paths == ("flatten", "hidden", "act", "head")
    assert "hidden" in invoke("layers", run.folder)
    assert potstill.models("builtin:mlp").names == ("builtin:mlp",) and "builtin:mlp" in invoke("models", "builtin:mlp")
    image = photos / "0.png"
    found = potstill.explain(run.folder, image, temperature=4, teacher=run.folder / "teacher")
    assert found.summary["temperatures"] == [4.0] and "T = 4" in repr(found) and "teacher" in repr(found)
    control = potstill.explain(run.folder, image, control=run.folder / "control" / "seed-0").summary
    assert set(control["models"]) == {"student", "control"} and len(control["probabilities"]["control"]) == 3
    with pytest.raises(potstill.UserError, match="--html is for a data set"):
        potstill.explain(run.folder, image, html=photos / "page.html")
    likeness = potstill.explain(run.folder, "digits", teacher=run.folder / "teacher", limit=100)
    assert "same class as the teacher" in repr(likeness)
    with pytest.raises(potstill.UserError, match="give one with --teacher"):
        potstill.explain(run.folder, "digits")


def test_a_look_at_the_images() -> None:
    found = potstill.check("digits")
    assert found.worst in ("none", "info", "warning", "error") and found.summary["images"] == 1797
    assert len(found.findings) == repr(found).count("    -> ")


def test_no_command_is_cut_in_the_list() -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout
    assert "..." not in listed.partition("Commands:")[2]
