"""Results: small, frozen, and true to the summary."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import potstill
from potstill.api.answers import Layers
from potstill.api.results import CompressResult, RunResult
from potstill.api.tables import Table, as_html, as_text
from potstill.cli.show import show
from potstill.stages.teacher.replay import caching_in_words

LONG = "a-model-with-a-name-that-is-longer-than-forty-columns.onnx"


def test_a_run_shows_the_figures_of_its_summary(run: RunResult) -> None:
    summary = json.loads((run.folder / "summary.json").read_text())
    assert run.verdict.result == summary["verdict"]["result"] and run.verdict.sentence == summary["verdict"]["sentence"]
    assert list(run.verdict.interval) == summary["verdict"]["interval"]
    for role, one in {"teacher": run.teacher, "control": run.control, "student": run.student}.items():
        assert one.parameters == summary["models"][role]["parameters"]
        assert one.bytes == summary["models"][role]["bytes"]
        assert one.latency_ms == summary["models"][role]["latency_ms"]
    assert run.student.accuracy == run.student.test_accuracy[0]
    assert run.student_int8 is None and run.report == run.folder / "report.html"
    text = repr(run)
    for part in (f"{run.student.accuracy:.2f}", f"{run.teacher.parameters:,}", run.verdict.sentence, str(run.report)):
        assert part in text and part in run._repr_html_().replace("&#x27;", "'")
    assert "<table" in run._repr_html_()


def test_a_result_is_frozen_and_plain(run: RunResult) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.folder = Path("x")  # type: ignore[misc]
    plain = json.loads(json.dumps(run.to_dict()))
    assert plain["folder"] == str(run.folder) and plain["verdict"] == run.summary["verdict"]
    assert run.notes == tuple(run.summary["notes"])
    again = potstill.run(run.summary["recipe"], out=run.folder)
    assert again.to_dict() == run.to_dict() and again.verdict == run.verdict


def test_the_process_without_figures_has_a_result_too() -> None:
    nothing = RunResult({}, Path("nowhere"))
    assert repr(nothing) == "RunResult()" and nothing.verdict is None and nothing.student is None


def test_markup_of_a_name_is_text() -> None:
    shown = repr(potstill.Prediction({"image": "\x1b[2Ja.png", "top": [{"class": "[/b]", "probability": 0.5}]}))
    assert shown == "\\x1b[2Ja.png: [/b] 50.0 %"
    table = Table(("layer", "n"), (("<script>", "1"),), "a & b")
    assert "&lt;script&gt;" in as_html([table, "x < y"]) and "<p>x &lt; y</p>" in as_html([table, "x < y"])
    assert as_text([table, "end"]) == "a & b\nlayer     n\n<script>  1\nend"


@pytest.fixture
def compressed(tmp_path: Path) -> CompressResult:
    row = {"file": LONG, "bytes": 23_456, "accuracy": 90.0, "interval": [88.0, 92.0], "latency_ms": 0.01234}
    models = {"original": {**row, "file": "original.onnx"}, "pruned": {**row, "lost": -0.07}}
    return CompressResult({"models": models, "speed_up": 1.5, "notes": []}, tmp_path / "out")


def test_an_export_names_each_file_once_and_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    row = {"bytes": 1_085_000, "accuracy": 91.4, "interval": [90.8, 91.9], "lost": 0.05, "agreement": 99.42}
    files = {name: {"file": name, **row} for name in ("model.onnx", "model_int8.onnx")}
    show(CompressResult({"models": {"network": {"accuracy": 91.4}, **files}}, Path("out")))
    printed = capsys.readouterr().out
    assert "│ model_int8.onnx │" in printed and "99.42" in printed and "1.1 MB" in printed
    assert printed.count("model_int8.onnx") == 1


def test_a_gain_is_no_loss(compressed: CompressResult) -> None:
    assert "+0.07" in repr(compressed) and "-0.07" not in repr(compressed) and "lost" not in repr(compressed)
    assert "23 kB" in repr(compressed) and compressed.models["pruned"].lost == -0.07


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_are_never_cut(
    compressed: CompressResult, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    row = {"path": f"features.{LONG}", "kind": "Conv2d", "shape": [3, 4], "parameters": 1, "stage": "stage:1"}
    catalogue = potstill.models("builtin:*cifar")
    bench = {"batch": 1, "threads": 1}
    timed = {
        "file": f"runs/{LONG}",
        "median_ms": 1.0,
        "low_ms": 0.5,
        "high_ms": 2.0,
        "images_per_second": 9,
        "ratio": 1,
    }
    results = [
        compressed,
        Layers({"layers": [row]}),
        catalogue,
        potstill.BenchResult({"timings": [{**bench, "files": [timed]}], "accuracy": [], "data": None}),
        potstill.Prediction({"image": f"photos/{LONG}", "top": [{"class": "cat", "probability": 0.5}]}),
    ]
    for result in results:
        show(result)
    printed = capsys.readouterr().out
    assert "…" not in printed
    for name in (LONG, str(compressed.folder), row["path"], timed["file"], f"photos/{LONG}", *catalogue.names):
        assert any(name in line for line in printed.splitlines()), name
    assert "90.00" in printed and "+0.07" in printed
    tables = [line for line in printed.splitlines() if line.startswith(("┏", "│", "└"))]
    assert all(len(line) <= width for line in tables) and bool(tables) == (width > 40)


def test_a_run_of_one_seed_is_told_in_the_singular(run: RunResult) -> None:
    text = json.dumps(run.summary["stages"]) + " ".join(run.notes) + run.verdict.sentence
    assert "Trained 1 control and 1 student" in text and "One seed cannot decide" in text
    assert not re.search(r"\b1 (controls|students|seeds|views|times|epochs|images|classes|passes)\b|0\.0 MB", text)
    assert caching_in_words(1132, 22_640, 0.3) == "Caching teacher logits: 1,132 views, 23 kB, about 1 s."
    assert caching_in_words(1, 22, 0.3) == "Caching teacher logits: 1 view, 22 B, about 1 s."


def test_counts_have_their_plural() -> None:
    one = potstill.BenchResult({"timings": [{"batch": 1, "threads": 1, "files": []}], "accuracy": [], "data": None})
    assert "Batch of 1 image, 1 thread" in repr(one)
    two = potstill.BenchResult({"timings": [{"batch": 32, "threads": 0, "files": []}], "accuracy": [], "data": None})
    assert "Batch of 32 images, all threads" in repr(two)
