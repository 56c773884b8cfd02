"""One frame for every stage: the same keys in every summary, the manifest last, the folder done once."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill import artifacts
from potstill.cli import app
from potstill.config import Config, build
from potstill.report.commands import next_steps
from potstill.stages import summary
from potstill.stages.compare import CompareConfig, compare
from potstill.stages.compress.export import ExportStageConfig, export_files
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.distill.run import run_recipe
from potstill.stages.finetune import FinetuneConfig, finetune
from potstill.stages.label import LabelConfig, run_label
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import record_name
from potstill.stages.selftrain import SelftrainConfig, selftrain
from tests.browser import Browser
from tests.report import looks
from tests.report.test_report import Page

pytestmark = pytest.mark.slow

DATA = {"path": "digits", "limit": 150}
TRAIN = {"epochs": 1, "batch_size": 32}
TEACHER = {"model": "builtin:mlp", "train": TRAIN}
STUDENT = {"model": "builtin:mlp", "options": {"hidden": 4}}
RUN = {"data": DATA, "teacher": TEACHER, "train": TRAIN, "seeds": 1}


def stages(root: Path) -> dict[str, tuple[Callable[..., dict[str, Any]], type[Config], dict[str, Any]]]:
    """Return the function, the type of its settings and small settings of every stage, in order."""
    teacher, model = str(root / "distill" / "teacher"), {"model": str(root / "distill"), "images": 32}
    methods = {"students": {"small": STUDENT}, "methods": {"kd": {"loss": "kd"}}}
    few = {"teachers": [{"model": teacher}], "labels": 40, "steps": 4, "rounds": 0, "seeds": 1, "crossfit": False}
    return {
        "distill": (run_recipe, Recipe, {**RUN, "student": STUDENT}),
        "compare": (compare, CompareConfig, {**RUN, **methods}),
        "finetune": (finetune, FinetuneConfig, {"data": DATA, "model": teacher, "views": 0, "train": TRAIN}),
        "selftrain": (selftrain, SelftrainConfig, {"data": DATA, "student": STUDENT, **few}),
        "label": (run_label, LabelConfig, {"data": DATA, "teacher": {"model": teacher}}),
        "prune": (prune, PruneConfig, {**model, "keep": 0.5}),
        "quantize": (quantize, QuantizeConfig, {**model, "weight_bits": 4}),
        "export": (export_files, ExportStageConfig, {**model, "int8": False, "golden": 2}),
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    root = tmp_path_factory.mktemp("stages")
    works = stages(root).items()
    return root, {kind: work(build(config, settings), root / kind) for kind, (work, config, settings) in works}


@pytest.mark.parametrize("kind", list(stages(Path())))
def test_a_stage_keeps_to_the_frame(done: tuple[Path, dict[str, dict[str, Any]]], kind: str) -> None:
    root, results = done
    result, folder = results[kind], root / kind
    written = json.loads((folder / "summary.json").read_text())
    summary.check(written)
    assert written == json.loads(json.dumps(result)) and written["kind"] == kind and written["schema"] == 2
    assert (artifacts.finished(folder) or {})["kind"] == kind and (folder / record_name(kind)).is_file()
    files = [file for file in folder.iterdir() if file.name != artifacts.MANIFEST]
    manifest = (folder / artifacts.MANIFEST).stat().st_mtime_ns
    assert all(file.stat().st_mtime_ns <= manifest for file in files), "the manifest comes last"
    for figures in written["models"].values():
        measured = {"accuracy", "interval", "images", "loss", "calibration_error"} & set(figures)
        assert len(measured) in (0, 5), "a model is measured as a whole or not at all"


@pytest.mark.parametrize("kind", list(stages(Path())))
def test_the_page_of_every_stage(done: tuple[Path, dict[str, dict[str, Any]]], kind: str) -> None:
    root, results = done
    html = (root / kind / "report.html").read_text(encoding="utf-8")
    page, ship = Page(html), results[kind].get("ship")
    assert len(html) < 3_000_000 and {"data", "measured", "recipe"} <= set(page.sections())
    for target in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert target.startswith("data:image/") or (root / kind / target).is_file(), target[:80]
    assert (ship is None) == (kind in ("label", "compare"))
    if ship is not None:  # the figures of the first screen are those of the summary, and of the file
        screen, insight = html.split("<main")[0].replace("\N{NO-BREAK SPACE}", " "), results[kind]["insight"]
        assert f"{ship['accuracy']:.1f} %" in screen and ship["file"] in screen
        assert (root / kind / ship["file"]).stat().st_size == ship["bytes"]
        assert {"recall", "confusion", "confidence"} <= set(page.sections())
        right = sum(row["right"] for row in insight["recall"])
        assert 100 * right / ship["images"] == pytest.approx(ship["accuracy"], abs=1e-3)
        matrix = insight["confusion"]["matrix"]
        assert sum(map(sum, matrix)) == ship["images"] and sum(matrix[k][k] for k in range(10)) == right
        assert f"expected calibration error {insight['calibration']['error']:.1f} points" in page.text
        for row in insight["recall"]:
            assert f"{row['recall']:.1f} % ({row['interval'][0]:.1f} to {row['interval'][1]:.1f})" in page.text


@pytest.mark.parametrize("page", [*(f"{kind}/report.html" for kind in stages(Path())), "selftrain/labels.html"])
def test_pages_in_a_browser(done: tuple[Path, dict[str, dict[str, Any]]], page: str, chromium: Browser) -> None:
    looks.check(chromium, done[0] / page)


def test_the_page_of_an_agreement_in_a_browser(
    done: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path, chromium: Browser
) -> None:
    student, file = done[0] / "distill", tmp_path / "agreement.html"
    found = CliRunner().invoke(
        app, ["explain", str(student), "digits", "--teacher", str(student / "teacher"), "--html", str(file)]
    )
    assert found.exit_code == 0, found.output
    looks.check(chromium, file)


PRINTED = [
    ("distill", 0),
    ("distill", 1),
    ("finetune", 0),
    ("finetune", 1),
    ("selftrain", 1),
    ("prune", 0),
    ("export", 1),
]


@pytest.mark.parametrize(("kind", "number"), PRINTED)
def test_the_printed_commands_work_as_printed(
    done: tuple[Path, dict[str, dict[str, Any]]], kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, results = done
    monkeypatch.chdir(root)
    why, command = next_steps(results[kind], Path(kind))[number]
    program, *words = shlex.split(command)
    assert why in Page((root / kind / "report.html").read_text(encoding="utf-8")).text
    if program == "python":
        subprocess.run([sys.executable, *words], check=True)
        return
    shorter = ["--epochs", "1", "--seeds", "1"] if words[0] == "distill" else []  # flags at the end, for time only
    found = CliRunner().invoke(app, [*words, *shorter])
    assert found.exit_code == 0, found.output


def test_a_page_is_written_anew_and_judged_by_another_target(done: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    root, results = done
    before = (root / "distill" / "report.html").read_bytes()
    again = potstill.report([root / "distill"])
    assert [one["folder"] for one in again.summary["reports"]] == [str(root / "distill")]
    assert (root / "distill" / "report.html").read_bytes() == before and not artifacts.damages(root / "distill")
    judged = potstill.report(root / "distill", min_accuracy=99.9, max_bytes="1B")
    ship = judged.summary["reports"][0]["ship"]
    assert ship["target"]["met"] is False and len(ship["target"]["missed"]) == 2 and "not met" in repr(judged)
    assert b"Target not met" in (root / "distill" / "report.html").read_bytes()
    assert not artifacts.damages(root / "distill")
    with pytest.raises(potstill.UserError, match="ships no file"):
        potstill.report(root / "compare", max_drop=1)


@pytest.mark.parametrize("kind", ["label", "prune"])
def test_a_finished_stage_is_not_touched_again(done: tuple[Path, dict[str, dict[str, Any]]], kind: str) -> None:
    root, results = done
    times = {file: file.stat().st_mtime_ns for file in (root / kind).rglob("*") if file.is_file()}
    work, config, settings = stages(root)[kind]
    assert work(build(config, settings), root / kind) == json.loads(json.dumps(results[kind]))
    assert times == {file: file.stat().st_mtime_ns for file in (root / kind).rglob("*") if file.is_file()}


def test_every_key_of_the_schema_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "summary.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`\.?([a-z_0-9]+)(?:\.[a-z_]+)?`", text))
    keys = {field.alias or name for name, field in summary.Summary.model_fields.items()}
    assert keys | set(summary.Figures.model_fields) <= documented
