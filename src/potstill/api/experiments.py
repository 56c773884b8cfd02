"""The packaged experiments: list, show and copy them (`recipes`), run one and record it (through `run`)."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potstill import config
from potstill.api.results import StageResult
from potstill.api.tables import Part, Table
from potstill.api.verb import new_folder, verb
from potstill.artifacts import read_object, write_text
from potstill.errors import ConfigError, did_you_mean
from potstill.report.experiment import PAGE, PLOT, Language, cell, page, plots, rows
from potstill.scheduling import Scheduler
from potstill.stages.experiment.expand import chosen
from potstill.stages.experiment.run import run_experiment
from potstill.stages.experiment.settings import ExperimentConfig
from potstill.words import argument
from potstill.yaml_text import parse_yaml

FOLDER = importlib.resources.files("potstill") / "recipes" / "experiments"
STEPS = "steps"
"""The key that an experiment has and a plain recipe has not."""
DOCS = Path("docs")


@dataclass(frozen=True, repr=False, eq=False)
class Recipes(StageResult):
    """The packaged experiments, or one of them: the whole recipe in `text`."""

    text: str = ""

    def parts(self) -> Iterator[Part]:
        if self.text:
            yield self.text
            return
        headings = ("recipe", "minutes", "data", "what it shows")
        listed = self.summary["recipes"]
        yield Table(headings, tuple((one["name"], _minutes(one), one["data"], one["title"]) for one in listed))
        yield "Next: potstill run mnist-distillation, or potstill recipes show NAME"


def _minutes(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{budget} {minutes:g}" for budget, minutes in one["minutes"].items())


@dataclass(frozen=True, repr=False, eq=False)
class ExperimentResult(StageResult):
    """An experiment: its results by name, goals and claims."""

    @property
    def report(self) -> Path | None:
        """The page for people."""
        return None if self.folder is None else self.folder / PAGE["en"]

    @property
    def results(self) -> dict[str, Any]:
        """What was measured, by name: `accuracy` (percent, one per seed), `mean`, `interval`, `measures`."""
        return self.summary["results"]

    def parts(self) -> Iterator[Part]:
        table = tuple(
            (label, cell(result, "accuracy"), cell(result, "interval"), cell(result, "parameters"))
            for label, result in rows(self.summary, Language())
        )
        headings = ("result", "accuracy, %", "95 % interval", "parameters")
        yield Table(headings, table, self.summary["recipe"]["title"])
        for one in [*self.summary["goals"], *self.summary["claims"]]:
            yield f"{one['result']}: {one['text']}"
        yield from super().parts()


def packaged() -> list[str]:
    """Return the names of the packaged experiments."""
    return sorted(file.name.removesuffix(".yaml") for file in FOLDER.iterdir() if file.name.endswith(".yaml"))


def text_of(name: str) -> str:
    """Return a packaged experiment as YAML; raise `ConfigError` for unknown names."""
    if name not in packaged():
        hint = did_you_mean(name, packaged())
        raise ConfigError(f"There is no recipe {name!r}.{hint} `potstill recipes` lists them: {', '.join(packaged())}.")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


@verb
def recipes(
    action: Literal["list", "show", "copy"] = "list", name: str | None = None, file: str | Path | None = None
) -> Recipes:
    """List the packaged experiments; show one, or copy it to a file to change it.

    Args:
        action: "list", "show" or "copy". name: of the recipe to show or copy. file: the copy, by default NAME.yaml.
    """
    if action == "list":
        return Recipes({"recipes": [_described(one) for one in packaged()]})
    if action not in ("show", "copy"):
        raise ConfigError(f"recipes takes list, show NAME or copy NAME [FILE], not {action!r}.")
    if name is None:
        raise ConfigError(f"Which recipe? Type: potstill recipes {action} NAME. The names: {', '.join(packaged())}.")
    text = text_of(name)
    if action == "show":
        return Recipes({"name": name, "text": text}, text=text)
    target = Path(file or f"{name}.yaml")
    if target.exists():
        raise ConfigError(f"{target} exists. Give another file: potstill recipes copy {name} FILE.")
    write_text(target, text)
    return Recipes(
        {"name": name, "file": str(target)},
        text=" ".join([f"Copied to {target}. Next: potstill run {argument(target)}", *_needed(parse_yaml(text))]),
    )


def _needed(recipe: Mapping[str, Any]) -> list[str]:
    return [f"{knob}=PATH" for knob in recipe.get("needs") or {}]


def _described(name: str) -> dict[str, Any]:
    known = parse_yaml(text_of(name))
    return {key: known[key] for key in ("name", "title", "data", "minutes", "shows")}


def settings_of(recipe: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of a recipe: given as such, of a YAML file, or of a packaged experiment by its name."""
    if isinstance(recipe, Mapping):
        return recipe
    if not Path(recipe).exists() and re.fullmatch(r"[\w-]+", str(recipe)):
        return parse_yaml(text_of(str(recipe)))
    return config.read_yaml(Path(recipe))


def run_steps(
    recipe: str | Path | Mapping[str, Any],
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    budget: Literal["quick", "full"] | None,
    record: bool,
    out: str | Path | None,
    command: str,
    scheduler: Scheduler,
) -> ExperimentResult:
    """Run an experiment, and with `record` write its pages below docs/experiments and docs/ko/experiments.

    recipe: what was typed, of which these are the settings.
    """
    typed = None if isinstance(recipe, Mapping) else str(recipe)
    experiment = chosen(settings, overrides, budget, recipe=typed)
    folder = new_folder(experiment.name, "experiment", experiment, out)
    result = ExperimentResult(run_experiment(experiment, folder, command=command, scheduler=scheduler), folder)
    if record:
        _record(experiment, folder)
    return result


def _record(experiment: ExperimentConfig, folder: Path) -> None:
    """Write the pages of a run into the documents of this checkout, with its plots."""
    summary, commit = read_object(folder / "summary.json"), _commit()
    for language, where in (("en", DOCS / "experiments"), ("ko", DOCS / "ko" / "experiments")):
        pictures = "" if language == "en" else "../../experiments/"
        plot = f"{pictures}{experiment.name}-{{}}.svg"
        write_text(where / f"{experiment.name}.md", page(summary, language, plot=plot, commit=commit))
    for number, _ in enumerate(plots(summary), 1):
        text = (folder / PLOT.format(number)).read_text(encoding="utf-8")
        write_text(DOCS / "experiments" / f"{experiment.name}-{number}.svg", text)


def _commit() -> str:
    """Return the commit of this checkout, shortened; "" outside of one."""
    try:
        shown = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return shown.stdout.strip()
