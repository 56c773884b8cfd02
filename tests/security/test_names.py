"""Names decide what a folder is called, never where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from potstill import names
from potstill.api.verb import new_folder
from potstill.cli import app
from potstill.config import build
from potstill.errors import ConfigError, RunError
from potstill.model_files.folder import save_model
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.report.read import read_run
from potstill.stages.compare.settings import CompareConfig
from potstill.stages.recipe import Recipe
from potstill.stages.selftrain.settings import SelftrainConfig

UNSAFE = [
    "../../x",
    "/any/where",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    ".hidden",
    "-out",
    "a\n",
    "a\0",
    "x.",
    "C:x",
    "a b",
    "x" * 101,
]
SAFE = ["every-label", "kd+at", "T_2.0", "größer", "7"]


@pytest.mark.parametrize("name", UNSAFE)
def test_every_setting_that_becomes_a_folder_refuses(name: str) -> None:
    data = {"data": {"path": "digits"}}
    students, methods = {"mlp": {}}, {"kd": {}}
    for kind, settings in (
        (Recipe, {**data, "name": name}),
        (Recipe, {**data, "comparisons": {name: {"objective.alpha": 0.5}}}),
        (SelftrainConfig, {**data, "name": name}),
        (CompareConfig, {**data, "name": name, "students": students, "methods": methods}),
        (CompareConfig, {**data, "students": {name: {}}, "methods": methods}),
        (CompareConfig, {**data, "students": students, "methods": {name: {}}}),
    ):
        with pytest.raises(ConfigError, match="is used as the name of a folder"):
            build(kind, settings)


@pytest.mark.parametrize("name", SAFE)
def test_ordinary_names_are_taken(name: str) -> None:
    recipe = build(Recipe, {"data": {"path": "digits"}, "name": name, "comparisons": {name: {"objective.alpha": 0.5}}})
    assert recipe.name == name and list(recipe.comparisons) == [name]


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../../x"])
def test_a_recipe_that_leads_outside_writes_nothing(tmp_path: Path, name: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"data: {{path: digits}}\ncomparisons: {{{name}: {{objective.alpha: 0.5}}}}\n")
    result = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and f"comparisons.{name}: '{name}' is used as the name of a folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("text", "fit"),
    [("photos (1)", "photos-1"), ("cats & dogs", "cats-dogs"), ("it's", "it-s"), ("..", "unnamed"), ("été", "été")],
)
def test_a_data_folder_may_be_called_anything(tmp_path: Path, text: str, fit: str) -> None:
    assert names.fitting(text) == fit and names.problem(fit) == ""
    assert all(names.problem(names.fitting(name)) == "" for name in UNSAFE)


def test_names_made_of_a_path_are_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = build(Recipe, {"data": {"path": "digits"}, "name": names.fitting("photos (1)")})
    assert new_folder(recipe.name, "run", recipe, None) == Path("runs/photos-1")


@pytest.mark.parametrize(
    "folder",
    ["../other", "/etc", "distill/../../other", "C:/x", "\\\\host\\x", "", None, 3, ["a"], "x" * 300, "a/" * 900],
)
def test_student_json_leads_nowhere_else(tmp_path: Path, folder: object) -> None:
    save_model(zoo.create("builtin:mlp", classes="ab", size=(8, 8), channels=1), tmp_path / "other")
    run = tmp_path / "run"
    run.mkdir()
    (run / "student.json").write_text(json.dumps({"folder": folder}))
    with pytest.raises(RunError, match="student.json holds the path .* is not inside"):
        find(str(run))


def test_student_json_that_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text("[1]")
    with pytest.raises(RunError, match="student.json holds the path"):
        find(str(tmp_path))


def test_a_student_inside_its_run_is_found(tmp_path: Path) -> None:
    save_model(zoo.create("builtin:mlp", classes="ab", size=(8, 8), channels=1), tmp_path / "distill" / "seed-0")
    (tmp_path / "student.json").write_text('{"folder": "distill/seed-0"}')
    assert find(str(tmp_path)).card.classes == ("a", "b")


def test_reports_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"kind": "distill", "comparisons": [{"name": "../../x"}]}))
    with pytest.raises(RunError, match="summary.json holds the path '../../x'"):
        read_run(tmp_path)
