"""Code runs because the command line or a Python call names it, never because a file does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill import own_code
from potstill.cli import app
from potstill.errors import ConfigError, ModelError
from potstill.losses import resolve
from potstill.models import zoo

CODE = """
from pathlib import Path
Path(__file__).with_name("executed").touch()
def f(student, teacher):
    return (student - teacher).square().mean(1)
"""


class Stopped(Exception):
    """The run went as far as it was meant to."""


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(CODE)
    return tmp_path / "evil.py"


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run look its loss up, and stop there."""

    def work(recipe: Any, *_: Any, **__: Any) -> None:
        methods = getattr(recipe, "methods", {"": recipe.objective} if hasattr(recipe, "objective") else {})
        for objective in methods.values():
            resolve(objective.terms[0].loss if objective.terms else objective.loss)
        raise Stopped

    monkeypatch.setattr("potstill.api.runs.run_recipe", work)
    monkeypatch.setattr("potstill.api.runs.compare_stage", work)


RECIPES = {
    "loss": ("run", "data: {path: digits}\nobjective: {loss: 'evil.py:f'}\n"),
    "terms": ("run", "data: {path: digits}\nobjective: {terms: [{loss: 'evil.py:f'}]}\n"),
    "comparison": ("run", "data: {path: digits}\ncomparisons: {other: {objective.loss: 'evil.py:f'}}\n"),
    "comparison-terms": ("run", "data: {path: digits}\ncomparisons: {a: {objective.terms: [{loss: 'evil.py:f'}]}}\n"),
    "method": ("compare", "data: {path: digits}\nstudents: {s: {}}\nmethods: {m: {loss: './evil.py:f'}}\n"),
    "candidate": (
        "compare",
        "data: {path: digits}\nstudents: {s: {}}\ntrials: 1\nmethods: {m: {terms: [{loss: 'evil.py:f'}]}}\n",
    ),
}


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.usefixtures("stopping")
def test_a_recipe_executes_nothing(evil: Path, kind: str) -> None:
    command, text = RECIPES[kind]
    Path("recipe.yaml").write_text(text)
    result = CliRunner().invoke(app, [command, "recipe.yaml", "--out", "run"])
    assert result.exit_code == 2 and "--allow-code" in result.stderr and "It was not executed" in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["evil.py", "recipe.yaml"]
    with pytest.raises(ConfigError, match="allow_code="):
        getattr(potstill, command)("recipe.yaml", out="run")
    assert not Path("executed").exists() and not Path("run").exists()


@pytest.mark.parametrize("kind", ["loss", "terms", "method"])
@pytest.mark.usefixtures("stopping")
def test_the_command_line_allows_it(evil: Path, kind: str) -> None:
    command, text = RECIPES[kind]
    Path("recipe.yaml").write_text(text)
    result = CliRunner().invoke(app, [command, "recipe.yaml", "--allow-code", str(evil), "--out", "run"])
    assert isinstance(result.exception, Stopped) and Path("executed").exists()


@pytest.mark.usefixtures("stopping")
def test_another_file_is_not_allowed_with_it(evil: Path) -> None:
    Path("recipe.yaml").write_text(RECIPES["loss"][1])
    Path("good.py").write_text(CODE)
    result = CliRunner().invoke(app, ["run", "recipe.yaml", "--allow-code", "good.py", "--out", "run"])
    assert result.exit_code == 2 and not Path("executed").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["distill", "digits", "--loss", "evil.py:f"],
        ["run", "recipe.yaml", "objective.loss=evil.py:f"],
        ["run", "recipe.yaml", "objective={loss: 'evil.py:f'}"],
        ["run", "recipe.yaml", "objective.terms=[{loss: 'evil.py:f'}]"],
    ],
)
@pytest.mark.usefixtures("stopping")
def test_what_is_typed_is_allowed(evil: Path, words: list[str]) -> None:
    Path("recipe.yaml").write_text("data: {path: digits}\n")
    result = CliRunner().invoke(app, [*words, "--out", "run"])
    assert isinstance(result.exception, Stopped), result.output
    assert Path("executed").exists()


@pytest.mark.usefixtures("stopping")
def test_a_python_call_may_name_code(evil: Path) -> None:
    with pytest.raises(Stopped):
        potstill.run({"data": {"path": "digits"}, "objective": {"loss": "evil.py:f"}}, out="run")
    with pytest.raises(Stopped):
        potstill.distill("digits", objective={"terms": [{"loss": "evil.py:f"}]}, out="run")
    Path("recipe.yaml").write_text(RECIPES["loss"][1])
    with pytest.raises(Stopped):
        potstill.run("recipe.yaml", allow_code=["evil.py"], out="run")


def test_the_permission_ends_with_the_call(evil: Path) -> None:
    with own_code.allowing("evil.py"):
        resolve("evil.py:f")
    Path("executed").unlink()
    with pytest.raises(ConfigError, match="It was not executed"):
        resolve("evil.py:f")
    assert not Path("executed").exists()


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg", "cache_dir"])
def test_options_of_a_network_read_no_files(tmp_path: Path, option: str) -> None:
    with pytest.raises(ModelError, match=f"The option {option} would load a file"):
        zoo.create("resnet10t", classes="ab", options={option: str(tmp_path / "evil.pth")})
