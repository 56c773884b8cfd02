"""`potstill export`: the folder, its measurements, golden images, and what it recommends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import potstill
from potstill import progress
from potstill.cli.show import show
from potstill.config import build
from potstill.errors import ConfigError, ModelError, RunError
from potstill.model_files import snippets
from potstill.model_files.folder import save_model
from potstill.model_files.runtimes import open_exported
from potstill.models import zoo
from potstill.stages.compress import export as stage
from potstill.stages.compress.export import ExportStageConfig, export_files
from potstill.stages.compress.recommend import recommended

DIGITS = {"path": "digits", "limit": 300}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = zoo.create("builtin:mlp", classes=[str(d) for d in range(10)], size=(8, 8), channels=1)
    save_model(made, folder)
    return folder


def config(model: Path, **settings: Any) -> ExportStageConfig:
    return build(ExportStageConfig, {"model": str(model), "data": DIGITS, "calibration": 32, **settings})


@pytest.mark.slow
def test_the_folder_holds_measured_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "TIMED", ((1, 1), (4, 0)))
    folder = tmp_path / "out"
    exported = potstill.export(model, data=DIGITS, calibration=32, golden=12, out=folder)
    assert {file.name for file in folder.iterdir()} == {
        "export.yaml", "manifest.json", "summary.json", "journal.json", "model.onnx",
        "model_int8.onnx", "golden", "evaluation", "splits.csv", "report.html", "examples.json",
    }  # fmt: skip
    told = exported.summary
    rows = told["models"]
    assert list(rows) == ["network", "model.onnx", "model_int8.onnx"]
    assert rows["model.onnx"]["lost"] == 0 and rows["model.onnx"]["max_logit_difference"] < 1e-4
    assert rows["model.onnx"]["agreement"] == 100 and rows["model_int8.onnx"]["agreement"] > 90
    assert rows["model.onnx"]["bytes"] == (folder / "model.onnx").stat().st_size
    timed = [(one["batch"], one["threads"]) for one in rows["model_int8.onnx"]["latency"]]
    assert timed == [(1, 1), (4, 0)]
    assert [one["speed_up"] for one in rows["model.onnx"]["latency"]] == [1, 1]
    assert told["ship"]["file"] in rows and told["ship"]["accuracy"] == rows[told["ship"]["file"]]["accuracy"]
    assert told["temperature"] is None  # these images may be those that the network learned from
    assert export_files(config(model, golden=12), folder) == told
    with pytest.raises(RunError, match="other settings"):
        export_files(config(model, int8=False), folder)

    show(exported)
    printed = capsys.readouterr().out
    assert "model_int8.onnx" in printed and told["ship"]["file"] in printed
    assert snippets.use(exported.recommended) in printed
    assert len(list((folder / "golden").glob("*.png"))) == 12
    verified = subprocess.run([sys.executable, folder / "golden" / "verify.py"], capture_output=True, text=True)
    assert verified.returncode == 0 and "model_int8.onnx: 12 images" in verified.stdout


@pytest.mark.slow
def test_tflite_and_c_are_measured_like_the_others(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs the extra tflite")
    pytest.importorskip("emx_onnx_cgen", reason="needs the extra c")
    monkeypatch.setattr(stage, "TIMED", ((1, 1),))
    exported = potstill.export(model, data=DIGITS, calibration=32, to=["tflite", "c"], golden=2, out=tmp_path / "out")
    rows = exported.summary["models"]
    assert list(rows)[3:] == ["model.tflite", "model_int8.tflite", "model.c", "model_int8.c"]
    assert rows["model.tflite"]["max_logit_difference"] < 1e-4 and rows["model_int8.tflite"]["agreement"] > 90
    assert rows["model_int8.tflite"]["bytes"] == (tmp_path / "out" / "model_int8.tflite").stat().st_size
    golden = json.loads((tmp_path / "out" / "golden" / "golden.json").read_text())
    expected = [golden["probabilities"][name] for name in ("model.tflite", "model.onnx")]
    np.testing.assert_allclose(*expected, atol=1e-4)
    assert (tmp_path / "out" / "golden" / golden["images"][1]["prepared"]).is_file()
    test = exported.summary["data"]["splits"]["test"]
    for name in ("model.c", "model_int8.c"):
        facts = rows[name]["compiled"]
        assert rows[name]["images"] == min(500, test) and facts["onnxruntime"]["agreement"] > 98
        assert facts["warnings"] == 0 and facts["memory"] > 0
    assert exported.summary["ship"]["file"] in rows
    with pytest.raises(ConfigError, match="tflite_type"):
        potstill.export(model, data=DIGITS, tflite_type="int16", out=tmp_path / "other")


def row(speed: float, *, lost: float = 0.0, p: float = 1.0, threads: int = 1, size: int = 100) -> dict[str, Any]:
    timed = {"median_ms": 1 / speed, "batch": 1, "threads": threads}
    return {"lost": lost, "p": p, "bytes": size, "latency": [timed]}


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ({"int8": row(2.0)}, "int8"),
        ({"int8": row(2.0, lost=0.1, p=0.4)}, "int8"),
        ({"int8": row(2.0, lost=3.0, p=0.001)}, "float"),
        ({"int8": row(0.8)}, "float"),
        ({"int8": row(2.0), "xml": row(3.0)}, "xml"),
        ({"int8": row(0.9), "pte": row(4.0, threads=0)}, "float"),
        ({"int8": row(0.9, size=120), "xml": row(1.0, size=120)}, "float"),  # slower or as fast, and larger
        ({}, "float"),
    ],
)
def test_what_is_slower_or_worse_is_never_recommended(others: dict[str, Any], chosen: str) -> None:
    assert recommended({"network": {}, "float": row(1.0), **others})["file"] == chosen
    slower = [name for name, told in others.items() if told["latency"][0]["median_ms"] > 1]
    assert all(any(note.startswith(f"{name} is slower") for note in progress.display().notes) for name in slower)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ({"int8": row(0.8, size=30)}, "int8"),
        ({"int8": row(2.0, size=30), "xml": row(3.0, size=40)}, "int8"),
        ({"int8": row(2.0, lost=3.0, p=0.001, size=30)}, "float"),
        ({"xml": row(2.0, size=120)}, "float"),
    ],
)
def test_the_smallest_file_is_recommended_where_bytes_matter(others: dict[str, Any], chosen: str) -> None:
    found = recommended({"network": {}, "float": row(1.0), **others}, prefer="bytes")
    assert found["file"] == chosen and ("30% of the bytes" in found["because"]) == (chosen == "int8")


@pytest.mark.parametrize("runtime", ["openvino", "executorch", "tflite", "c"])
def test_an_absent_runtime_is_told_before_the_work(
    model: Path, tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf"\w+ is not installed. Install it: pip install 'potstill\[{runtime}\]'"):
        export_files(config(model, to=["onnx", runtime]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its name must end in \.onnx, \.xml, \.pte, \.tflite"):
        open_exported(tmp_path / "model.mlmodel")
