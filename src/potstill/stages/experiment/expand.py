"""From the recipe of an experiment to the settings of each of its stages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import config, names
from potstill.config import Config
from potstill.errors import ConfigError, did_you_mean
from potstill.stages.experiment.settings import BUDGETS, Budget, ExperimentConfig, StepConfig
from potstill.words import argument

NAME = re.compile(r"\$([A-Za-z]\w*)")
SEED = "seed"
"""The name in `each` over which the results are averaged."""


@dataclass(frozen=True)
class Part:
    """One stage of an experiment. each: the labels of its values; folder: relative to that of the experiment."""

    step: str
    stage: str
    each: dict[str, str]
    settings: dict[str, Any]
    folder: Path

    @property
    def key(self) -> str:
        """The beginning of the names of its results: the step and the values, without the seed."""
        return "/".join([self.step, *(text for name, text in self.each.items() if name != SEED)])


def chosen(
    settings: Mapping[str, Any], assignments: Iterable[str], budget: Budget | None, *, recipe: str | None = None
) -> ExperimentConfig:
    """Return the experiment with the knobs of a budget, then with "key=value" assignments: a knob or a dotted key.

    recipe: what was typed, for a command that is printed; the name of the experiment if it is None.
    Raises `ConfigError` for unknown knobs, and for those that have no value yet.
    """
    assignments, knobs = list(assignments), dict(settings.get("knobs") or {})
    fields = ExperimentConfig.model_fields
    placed, problems = [], []
    for assignment in assignments:
        first = re.split(r"[.=]", assignment, maxsplit=1)[0]
        if first == assignment:
            problems.append(config.not_a_setting(assignment, "epochs=10"))
        elif first in knobs:
            placed.append(f"knobs.{assignment}")
        elif first in fields and "." in assignment.partition("=")[0]:
            placed.append(assignment)
        else:
            hint = did_you_mean(first, knobs) or f" Its knobs: {', '.join(knobs)}."
            problems.append(f"{first}: {settings.get('name', 'the recipe')} has no such knob.{hint}")
    if problems:
        raise ConfigError(*problems)
    if budget is not None and budget not in BUDGETS:
        raise ConfigError(f"--budget is {' or '.join(BUDGETS)}, not {budget!r}.")
    changed = (settings.get("budgets") or {}).get(budget or BUDGETS[0]) or {}
    result = config.build(ExperimentConfig, config.override({**settings, "knobs": {**knobs, **changed}}, placed))
    _check_needs(result, [recipe or result.name, *assignments], budget)
    return result


def _check_needs(experiment: ExperimentConfig, typed: Sequence[str], budget: str | None) -> None:
    missing = [name for name in experiment.needs if experiment.knobs.get(name) is None]
    if missing:
        given = " ".join(f"{name}=PATH" for name in missing)
        what = "; ".join(f"{name} is {experiment.needs[name]}" for name in missing)
        again = " ".join([*map(argument, typed), given, *([f"--budget {budget}"] if budget else [])])
        raise ConfigError(f"{experiment.name} needs {' and '.join(missing)}: {what}. Type: potstill run {again}")


def parts_of(experiment: ExperimentConfig, folder: Path) -> list[Part]:
    """Return the stages of an experiment in `folder`, in order; raise `ConfigError` for unknown names."""
    known: dict[str, Any] = dict(experiment.knobs)
    parts = []
    for name, step in experiment.steps.items():
        where = Path("steps") / name
        for each in _combinations(step, known):
            labels = {key: label for key, (label, _) in each.items()}
            inside = where / "-".join(names.fitting(label) for label in labels.values()) if labels else where
            values = known | {key: value for key, (_, value) in each.items()}
            settings = _filled(step.settings, values, f"steps.{name}")
            parts.append(Part(name, step.stage, labels, settings, inside))
        known[name] = str(folder / where)
    return parts


def independent(experiment: ExperimentConfig) -> list[list[str]]:
    """Return the names of the steps in their order, in groups of which no step uses the results of another."""
    groups: list[list[str]] = []
    for name, step in experiment.steps.items():
        used = set(NAME.findall(str((step.settings, step.each))))
        if not groups or used & set(groups[-1]):
            groups.append([])
        groups[-1].append(name)
    return groups


def build(part: Part, kind: type[Config]) -> Any:
    """Return the settings of a part, checked; an error names the step."""
    return config.build(kind, part.settings, origin=f"steps.{part.step}")


def _combinations(step: StepConfig, known: Mapping[str, Any]) -> list[dict[str, tuple[str, Any]]]:
    """Return {name: (label, value)} for every combination of the values in `each`."""
    axes = []
    for name, values in step.each.items():
        given = _filled(values, known, f"each.{name}")
        given = range(given) if isinstance(given, int) else given
        pairs = given.items() if isinstance(given, Mapping) else [(_label(value), value) for value in given]
        axes.append([(name, (str(label), value)) for label, value in pairs])
    return [dict(combination) for combination in itertools.product(*axes)]


def _label(value: Any) -> str:
    return names.fitting(str(value)) if isinstance(value, str) else str(value)


def _filled(value: Any, known: Mapping[str, Any], where: str) -> Any:
    """Return settings with every $NAME replaced: by the value itself where it is the whole text."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, known, where) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, known, where) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := NAME.fullmatch(value):
        return _known(whole, known, where)
    return NAME.sub(lambda match: str(_known(match, known, where)), value)


def _known(match: re.Match[str], known: Mapping[str, Any], where: str) -> Any:
    name = match.group(1)
    if name not in known:
        raise ConfigError(f"{where}: ${name} is no knob, value of `each` or earlier step.{did_you_mean(name, known)}")
    return known[name]
