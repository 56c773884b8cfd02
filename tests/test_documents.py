"""What the documents show is run: recipes parse, Python blocks execute, command lines are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from potstill import config
from potstill.cli import app
from potstill.objectives.objective import check
from potstill.stages.distill.recipes import with_overrides
from potstill.stages.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(file: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", file.read_text(encoding="utf-8"), re.M | re.S)


RECIPES = blocks(ROOT / "docs" / "recipes.md", "yaml")
RECIPES += [file.read_text(encoding="utf-8") for file in sorted((ROOT / "src" / "potstill" / "recipes").glob("*.yaml"))]


@pytest.mark.parametrize("text", RECIPES, ids=lambda text: str(yaml.safe_load(text)["name"]))
def test_recipes_are_valid(text: str) -> None:
    recipe = config.build(Recipe, yaml.safe_load(text))
    check(recipe.objective.loss_terms, classes=10, teacher=True)
    for name in recipe.comparisons:
        with_overrides(recipe, name)
    assert config.build(Recipe, recipe.to_json()) == recipe  # the resolved recipe of a run folder is one too


def test_every_key_of_a_recipe_is_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    missing = []
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        keys = [f"{name}.{key}" for key in inner] if inner else [name]
        missing += [key for key in keys if f"`{key}`" not in text]
    assert not missing


@pytest.mark.slow
def test_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(ROOT / "README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "One seed" in capsys.readouterr().out and (tmp_path / "runs" / "distill-digits" / "report.html").is_file()


def commands() -> list[list[str]]:
    found = []
    for file in DOCUMENTS:
        for block in blocks(file, "") + blocks(file, "bash"):
            lines = [line.removeprefix("$ ") for line in block.splitlines()]
            found += [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("potstill ")]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_lines_of_the_documents_parse(words: list[str]) -> None:
    group = get_command(app)
    command = group.commands[words[0]]
    command.make_context(words[0], list(words[1:]))


def test_documents_name_no_machine_and_no_registry() -> None:
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"/(work|root|home)/|index.url", text), file
