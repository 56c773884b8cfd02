"""The table of contents, and signatures that hold what configs and flags promise."""

from __future__ import annotations

import importlib
import inspect
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from typer.main import get_command

import potstill
from potstill.api.keywords import OF_THE_VERB, PARTS, PLACES, settings_of
from potstill.cli import app
from potstill.config import Config
from potstill.errors import ConfigError
from potstill.stages.compress.export import ExportStageConfig
from potstill.stages.compress.prune import PruneConfig
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.finetune import FinetuneConfig
from potstill.stages.label import LabelConfig
from potstill.stages.recipe import Recipe
from potstill.stages.selftrain import SelftrainConfig

ROOT = Path(__file__).parents[2]
CONFIGS: dict[str, type[Config]] = {
    "distill": Recipe,
    "finetune": FinetuneConfig,
    "selftrain": SelftrainConfig,
    "label": LabelConfig,
    "prune": PruneConfig,
    "quantize": QuantizeConfig,
    "export": ExportStageConfig,
}
VERBS = (
    "demo shrink check finetune selftrain label distill recipes run compare explain prune quantize export report "
    "evaluate predict app models layers formats bench clean debug"
).split()
LISTS = {("export", "to")}  # one may be given by itself
IDLE = {"export": set("teacher teacher_weights objective train images augment views".split())}  # it does not train
OF_THE_COMMAND_LINE = {"quiet", "as_json", "verbose", "track", "help_all", "help"}
OF_TEACHERS = {"teacher", "teacher_weights", "mean", "std", "size"}  # selftrain puts them under `teachers`


def test_the_face_is_what_it_names() -> None:
    assert dir(potstill) == sorted(potstill.__all__)
    assert {*VERBS, "load", "Model", "UserError", "set_verbosity"} <= set(dir(potstill))
    assert all(getattr(potstill, name) is not None for name in dir(potstill))
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        potstill.distil  # noqa: B018


def test_a_package_does_not_hide_the_verb_of_its_name() -> None:
    importlib.import_module("potstill.models.zoo")
    assert callable(potstill.models) and not isinstance(potstill.models, types.ModuleType)


def test_types_are_part_of_the_package() -> None:
    assert (ROOT / "src" / "potstill" / "py.typed").is_file()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["potstill"]


@pytest.mark.parametrize("verb", [*VERBS, "load"])
def test_every_keyword_has_a_type_and_a_line(verb: str) -> None:
    function = getattr(potstill, verb)
    text = function.__doc__ + ((ROOT / "docs" / "selftrain.md").read_text() if verb == "selftrain" else "")
    for name, parameter in inspect.signature(function).parameters.items():
        assert parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert parameter.annotation is not inspect.Parameter.empty, name
        assert name in text or name in ("command", "out"), f"{verb}: {name} is not documented"


def keywords(verb: str) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(getattr(potstill, verb))
    parameters = inspect.signature(getattr(potstill, verb)).parameters.items()
    return {name: one.replace(annotation=hints[name]) for name, one in parameters if name not in OF_THE_VERB}


@pytest.mark.parametrize("verb", CONFIGS)
def test_keywords_are_settings(verb: str) -> None:
    for name, parameter in keywords(verb).items():
        if verb == "selftrain" and name in OF_TEACHERS:
            continue
        field = _field(CONFIGS[verb], PLACES[verb].get(name, name))
        kinds = _kinds(parameter.annotation) - {type(None)}
        if name in PARTS[verb]:  # a group of settings, or its main one
            main = _field(CONFIGS[verb], f"{PLACES[verb].get(name, name)}.{PARTS[verb][name]}")
            kinds -= _kinds(main.annotation)
        kinds -= _kinds(str) if (verb, name) in LISTS else set()
        assert kinds <= _kinds(field.annotation), f"{verb}: {name} takes {kinds - _kinds(field.annotation)}"
        given = parameter.default is inspect.Parameter.empty or name in ("teacher", "student")
        assert given or parameter.default is None, f"{verb}: {name} has a default of its own"


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_setting_has_a_keyword(verb: str) -> None:
    reached = {PLACES[verb].get(name, name).split(".")[0] for name in keywords(verb)}
    assert set(CONFIGS[verb].model_fields) - IDLE.get(verb, set()) <= reached


def test_defaults_of_distill_are_those_of_a_recipe() -> None:
    given = keywords("distill")
    recipe = Recipe(data={"path": "x"})
    assert given["teacher"].default == recipe.teacher.model and given["student"].default == recipe.student.model


@pytest.mark.parametrize("verb", VERBS)
def test_flags_are_keywords(verb: str) -> None:
    flags = {parameter.name for parameter in get_command(app).commands[verb].params} - OF_THE_COMMAND_LINE
    assert flags <= set(inspect.signature(getattr(potstill, verb)).parameters)


def test_commands_are_listed_in_the_order_of_the_road() -> None:
    assert list(get_command(app).commands) == VERBS


def _field(config: type[Config], place: str) -> Any:
    first, _, rest = place.partition(".")
    field = config.model_fields[first]
    if not rest:
        return field
    inner = [one for one in _parts(field.annotation) if isinstance(one, type) and issubclass(one, Config)]
    return _field(inner[0], rest)


def _parts(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return tuple(p for one in typing.get_args(annotation) for p in _parts(one)) if union else (annotation,)


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain kinds of values that an annotation takes."""
    kinds: set[Any] = set()
    for part in _parts(annotation):
        origin = typing.get_origin(part) or part
        if origin is Annotated:  # a number with a unit (config.py)
            kinds |= {typing.get_args(part)[0], str}
        elif origin is Literal:
            kinds |= set(typing.get_args(part))
        elif origin in (list, tuple, Sequence):
            kinds.add(list)
        elif origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Config)):
            kinds.add(dict)
        else:
            kinds.add(str if origin is Path else origin)
    return kinds | ({int} if float in kinds else set()) | ({"none", "all"} if str in kinds else set())


def test_a_keyword_is_a_setting_and_nested_settings_stay() -> None:
    given = {
        "data": {"path": Path("photos"), "limit": 500}, "teacher": "resnet50", "teacher_epochs": 4, "epochs": 3,
        "train": {"lr": 0.1}, "objective": {"temperature": 4}, "alpha": 0.2, "labels": 100, "seeds": None, "out": "x",
        "comparisons": {"all": {"student.labels": None}},
    }  # fmt: skip
    assert settings_of("distill", given) == {
        "data": {"path": "photos", "limit": 500},
        "teacher": {"model": "resnet50", "train": {"epochs": 4}},
        "train": {"lr": 0.1, "epochs": 3},
        "objective": {"temperature": 4, "alpha": 0.2},
        "student": {"labels": 100},
        "comparisons": {"all": {"student.labels": None}},
    }


def test_what_is_given_twice_is_told_at_once() -> None:
    given = {"data": "x", "epochs": 3, "train": {"epochs": 4, "lr": 0.1}, "lr": 0.2}
    with pytest.raises(ConfigError) as error:
        settings_of("distill", given)
    assert error.value.problems == [
        "train.epochs is given twice: 3 and 4. Leave one out.",
        "train.lr is given twice: 0.1 and 0.2. Leave one out.",
    ]
    with pytest.raises(ConfigError, match="teacher and teachers are both given"):
        potstill.selftrain("digits", teacher="builtin:mlp", teachers=[{"model": "builtin:mlp"}])
    with pytest.raises(TypeError, match="epoch"):
        potstill.distill("digits", epoch=3)


def test_a_run_of_short_keywords_is_that_recipe(run: potstill.RunResult) -> None:
    recipe = json.loads((run.folder / "summary.json").read_text())["recipe"]
    assert (recipe["train"]["epochs"], recipe["teacher"]["train"]["epochs"], recipe["seeds"]) == (2, 2, 1)
    assert recipe["data"]["limit"] == 300 and recipe["train"]["lr"] == 0.01 and recipe["name"] == "distill-digits"
