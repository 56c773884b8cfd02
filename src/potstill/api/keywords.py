"""From the keywords of a verb to its settings: `epochs=3` is `train.epochs` of the recipe.

A verb has the keywords of the command line's flags. Each stands for one setting, under its own name or under another
(`PLACES`); `data`, `train` and `objective` may also be given as nested settings, as in a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.errors import ConfigError

MACHINES = ("workers", "ray", "gpus", "part")
"""Where the trainings of a verb run, which does not change their results."""
OF_THE_VERB = ("out", "command", *MACHINES)
"""Keywords that are no settings, unless `PLACES` has one."""

TRAIN = {name: f"train.{name}" for name in ("epochs", "batch_size", "lr", "ema", "patience", "select", "balance")}
DATA = {name: f"data.{name}" for name in ("limit", "group", "test_from", "allow_empty", "size", "fit", "unlabelled")}
TEACHER = {"teacher_weights": "teacher.weights", "teacher_epochs": "teacher.train.epochs"}
STUDENT = {"student_weights": "student.weights", "student_size": "student.size", "labels": "student.labels"}
OBJECTIVE = {name: f"objective.{name}" for name in ("alpha", "temperature", "loss")}

OF_GOALS = ("max_bytes", "max_latency", "min_accuracy", "max_drop")
GOAL = {name: f"goal.{name}" for name in OF_GOALS}
BUDGETS = {name: f"budgets.{name}" for name in (*OF_GOALS, "max_ram", "max_macs")}

PLACES: dict[str, dict[str, str]] = {
    "distill": {**TRAIN, **DATA, **TEACHER, **STUDENT, **OBJECTIVE, **GOAL, "input": "export.input"},
    "finetune": {**TRAIN, **DATA},
    "selftrain": {**TRAIN, **DATA},
    "label": {**DATA, **TEACHER},
    "shrink": {**DATA, **BUDGETS, "teacher_weights": "teacher.weights", "workers": "workers"},
    "prune": {**TRAIN, **DATA},
    "quantize": {**TRAIN, **DATA},
    "export": {**DATA},
}
"""Where a keyword stands in the settings of a verb, if not under its own name."""

PARTS: dict[str, dict[str, str]] = {
    "distill": {"data": "path", "teacher": "model", "student": "model"},
    "finetune": {"data": "path"},
    "selftrain": {"data": "path", "student": "model", "large": "model"},
    "label": {"data": "path", "teacher": "model"},
    "shrink": {"data": "path", "teacher": "model"},
    "prune": {"data": "path"},
    "quantize": {"data": "path"},
    "export": {"data": "path"},
}
"""Keywords that take a group of settings, or one value: which setting of the group that is."""


def settings_of(verb: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that stand for the keywords of a call; what is None was not given.

    Raises `ConfigError` where two keywords give the same setting two values.
    """
    settings: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in keywords.items():
        if value is None or (name in OF_THE_VERB and name not in PLACES[verb]):
            continue
        place, plain = PLACES[verb].get(name, name), _plain(value)
        if name in PARTS[verb] and not isinstance(plain, Mapping):
            place = f"{place}.{PARTS[verb][name]}"
        problems += _put(settings, tuple(place.split(".")), plain)
    if problems:
        raise ConfigError(*problems)
    return settings


def _put(settings: dict[str, Any], place: tuple[str, ...], value: Any) -> list[str]:
    """Set a setting, or those of a group; return a sentence for each that has another value already."""
    if isinstance(value, Mapping) and value:
        return [problem for key, inner in value.items() for problem in _put(settings, (*place, key), inner)]
    *parents, last = place
    for parent in parents:
        settings = settings.setdefault(parent, {})
    if last in settings and settings[last] != value:
        return [f"{'.'.join(place)} is given twice: {settings[last]!r} and {value!r}. Leave one out."]
    settings[last] = value
    return []


def _plain(value: Any) -> Any:
    """Return the value with paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
