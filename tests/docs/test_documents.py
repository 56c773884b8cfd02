"""What the documents show is checked: recipes load, Python runs or fits the functions, command lines are real.

`EXECUTED` blocks run, one after the other in one folder; the others are too long for a test, and are held against the
real signatures, settings and names instead.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import potstill
from potstill import config
from potstill.api.experiments import packaged, text_of
from potstill.cli import app
from potstill.cli.examples import EXAMPLES
from potstill.losses import SPECS
from potstill.models.registry import family_of
from potstill.objectives.objective import check
from potstill.stages.compare.settings import CompareConfig, plan
from potstill.stages.distill.recipes import with_overrides
from potstill.stages.experiment.expand import chosen
from potstill.stages.recipe import Recipe
from tests.docs.blocks import DOCUMENTS, LANGUAGES, ROOT, Block, blocks, shell_lines, value_of, words

COMMANDS = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

NOT_PARSED = {
    "potstill --offline COMMAND": "stands for every command",
    "potstill COMMAND --help": "stands for every command",
    "potstill COMMAND --help-all": "stands for every command",
}
"""Command lines that no parser can take, and why."""
NOT_CODE = {"architecture.md": "signatures without bodies"}
"""Documents whose Python blocks are no programs, and why."""
FOREIGN = ("pip", "make", "git", "cd", "python", "torchrun", "tensorboard", "trackio", "unzip", "source", "ssh", "scp")
"""Programs of others that a reader types."""
NAMES_OF_A_PLACE = re.compile(
    r"[/\\]|\.(onnx|csv|npz|json)$|^(DATA|MODEL|NAME|FOLDER|FILE|TEACHER|STUDENT|T|S|M|DIR|RUN)"
)
"""Models that are files or folders of the reader, or stand for any name."""


def test_every_block_has_a_known_language() -> None:
    assert [block.place for block in blocks() if block.language not in LANGUAGES] == []


# -- recipes ---------------------------------------------------------------------------------------------------

RECIPES = [(block.place, block.text) for block in blocks("yaml")] + [
    (file.name, file.read_text(encoding="utf-8"))
    for file in sorted((ROOT / "src" / "potstill" / "recipes").glob("*.yaml"))
]


@pytest.mark.parametrize("text", [text for _, text in RECIPES], ids=[place for place, _ in RECIPES])
def test_recipes_are_valid_and_name_models_that_exist(text: str) -> None:
    settings = yaml.safe_load(text)
    for name in _models(settings):
        known(name)
    if "students" in settings:
        assert plan(config.build(CompareConfig, settings))
        return
    recipe = config.build(Recipe, settings)
    check(recipe.objective.loss_terms, classes=10, teacher=True)
    for name in recipe.comparisons:
        with_overrides(recipe, name)
    assert config.build(Recipe, recipe.to_json()) == recipe  # the resolved recipe of a run folder is one too


def _models(settings: Any) -> list[str]:
    """Return the values of all keys `model`, at any depth."""
    if isinstance(settings, dict):
        own = [settings["model"]] if isinstance(settings.get("model"), str) else []
        return own + [name for value in settings.values() for name in _models(value)]
    return [name for value in settings for name in _models(value)] if isinstance(settings, list) else []


def test_every_key_of_a_recipe_is_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    missing = []
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        keys = [f"{name}.{key}" for key in inner] if inner else [name]
        missing += [key for key in keys if f"`{key}`" not in text]
    assert not missing


# -- command lines ---------------------------------------------------------------------------------------------

LINES = [*shell_lines(), *(("--help", example) for two in EXAMPLES.values() for example in two)]


@pytest.mark.parametrize(("place", "line"), LINES, ids=[f"{place}: {line}" for place, line in LINES])
def test_command_lines_are_real(place: str, line: str) -> None:
    if line in NOT_PARSED:
        return
    typed = words(line)
    if typed[0] != "potstill":
        _check_foreign(typed)
        return
    typed = typed[1:-1] if typed[-1] in ("...", "…") else typed[1:]
    typed = [word for word in typed if word != "--offline"]
    if typed[0].startswith("-"):  # --version, --help, --install-completion
        assert typed[0] in get_command(app).make_context("potstill", [], resilient_parsing=True).get_help()
        return
    command = COMMANDS[typed[0]]
    given = [word for word in typed[1:] if word not in ("--help", "--help-all")]
    _check_names(typed)
    try:
        context = command.make_context(typed[0], given)
    except Exception as error:  # in a sentence a command may be named without its arguments
        if place.endswith(".md") and type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"):
            return
        raise
    if typed[0] in ("run", "compare") and context.params.get("overrides"):
        _check_overrides(typed[0], context.params["recipe"], context.params["overrides"])


def _check_foreign(typed: list[str]) -> None:
    assert typed[0] in FOREIGN, typed[0]
    if typed[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(typed[1:]) <= set(targets)
    for extras in re.findall(r"potstill\[([\w,]+)\]", " ".join(typed)):
        assert set(extras.split(",")) <= EXTRAS.keys()


def _check_names(typed: list[str]) -> None:
    for flag in ("--model", "--teacher", "--student", "--large"):
        for name in value_of(typed, flag):
            known(name)
    for loss in value_of(typed, "--loss"):
        assert loss in SPECS or re.fullmatch(r"[\w/]+\.py:\w+", loss), loss


def known(name: str) -> None:
    """Raise `ModelError` for the name of a model that does not exist."""
    if name not in ("auto", "none", "NAME@LAYER") and not NAMES_OF_A_PLACE.search(name.split("@")[0]):
        family_of(name)


def _check_overrides(command: str, recipe: str | Path, overrides: list[str]) -> None:
    """Raise `ConfigError` for settings that do not exist, or knobs of an experiment; KEY=VALUE stands for any."""
    settings = {"data": {"path": "x"}, "students": {"s": {"model": "builtin:mlp"}}, "methods": {"kd": {}}}
    kind, least = (Recipe, {"data": {"path": "x"}}) if command == "run" else (CompareConfig, settings)
    given = [override for override in overrides if override != "KEY=VALUE"]
    if str(recipe) in packaged():
        chosen(yaml.safe_load(text_of(str(recipe))), given, None)
        return
    config.build(kind, config.override(least, given))


# -- Python ----------------------------------------------------------------------------------------------------

EXECUTED = ("README.md", "own-loss.md", "own-model.md")
"""Documents whose Python blocks run, each document in one namespace, all in one folder."""


@pytest.mark.parametrize(
    "block", [one for one in blocks("python") if one.file.name not in NOT_CODE], ids=lambda block: block.place
)
def test_python_fits_the_functions(block: Block) -> None:
    """Imports resolve, and calls of potstill's functions have keywords that exist."""
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            _check_import(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "potstill":
            assert hasattr(potstill, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("potstill."):
            function = getattr(potstill, ast.unparse(node.func).removeprefix("potstill."), None)
            if callable(function):
                inspect.signature(function).bind(
                    *node.args, **{keyword.arg: None for keyword in node.keywords if keyword.arg}
                )


def _check_import(node: ast.Import | ast.ImportFrom) -> None:
    for name in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
        if any(f"# {name}.py\n" in block.text for block in blocks("python")):
            continue  # a file that the reader writes
        module = importlib.import_module(str(name))
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.slow
def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in EXECUTED:
        names: dict[str, Any] = {"__name__": name}
        for block in blocks("python"):
            if block.file.name == name:
                if first := re.match(r"# (\w+\.py)\n", block.text):  # a file that the reader writes
                    (tmp_path / first[1]).write_text(block.text)
                else:
                    exec(compile(block.text, block.place, "exec"), names)
    assert "One seed" in capsys.readouterr().out and (tmp_path / "runs" / "distill-digits" / "report.html").is_file()


def test_the_korean_readme_shows_the_same_program() -> None:
    shown = {name: [b.text for b in blocks("python") if b.file.name == name] for name in ("README.md", "README.ko.md")}
    assert shown["README.md"] == shown["README.ko.md"] != []


# -- the rest --------------------------------------------------------------------------------------------------


def test_documents_name_no_machine_and_no_registry() -> None:
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"/(work|root|home)/|index.url|pypi", text), file


def test_links_lead_somewhere() -> None:
    """Relative links of all documents name files of the repository, and anchors of them."""
    broken = []
    for file in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"https?:|mailto:", link):
                target, _, anchor = link.partition("#")
                place = (file.parent / target).resolve() if target else file
                if not place.exists() or anchor and place.suffix == ".md" and anchor not in _anchors(place):
                    broken.append((file.name, link))
    assert broken == []


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
