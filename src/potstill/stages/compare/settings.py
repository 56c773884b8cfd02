"""The recipe of a comparison: methods x students x seeds over one data set, one teacher and one budget."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.config import Config, build, override
from potstill.errors import ConfigError
from potstill.names import SafeName
from potstill.stages.recipe import DataConfig, ObjectiveConfig, StudentConfig, TeacherConfig, Views
from potstill.training.settings import TrainConfig

CONTROL = "control"
TUNABLE = ("objective.", "train.lr", "train.weight_decay", "train.momentum")  # none of them changes the budget


class ControlConfig(Config):
    """The students without a teacher, and what is tried for them where `trials` is above 1."""

    candidates: tuple[dict[str, Any], ...] = ()


class MethodConfig(ObjectiveConfig):
    """A way to teach: an objective, and what is tried for it where `trials` is above 1 (`objective.temperature: 4`)."""

    candidates: tuple[dict[str, Any], ...] = ()


class Cell(Config):
    """What the student of a cell is, what it minimises (unless it is a control), and how it is trained."""

    student: StudentConfig
    objective: ObjectiveConfig
    train: TrainConfig


class CompareConfig(Config):
    """One comparison. Every cell has the same data, teacher, views, steps and number of tuning trials.

    trials: how many settings of each method, and of the control, are trained on a seed of their own and judged on
    validation; the best one is then trained on every seed. 1 trains what is written.
    """

    name: SafeName = "compare"
    title: str = ""
    data: DataConfig
    teacher: TeacherConfig = TeacherConfig()
    students: dict[SafeName, StudentConfig] = Field(min_length=1)
    methods: dict[SafeName, MethodConfig] = Field(min_length=1)
    control: ControlConfig = ControlConfig()
    trials: int = Field(default=1, ge=1)
    train: TrainConfig = TrainConfig()
    augment: str | list[Any] = "auto"
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = Field(default=0.2, gt=0)
    views: int | None = Field(default=None, ge=1, description="how many views of each image; null: one an epoch")
    seeds: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0, description="the first seed")

    @model_validator(mode="after")
    def _equal(self) -> CompareConfig:
        problems = [*_wrong_names(self), *_unequal_budgets(self)]
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def view_count(self) -> int:
        """Number of views of each image: one an epoch where the recipe does not say."""
        return self.views or self.train.epochs

    @property
    def training_views(self) -> Views:
        """The views that every student sees."""
        return Views(self.augment, self.views, self.seed, mix=self.mix, mix_alpha=self.mix_alpha)

    def cell(self, student: str, method: str, changes: dict[str, Any] | None = None) -> Cell:
        """Return what a cell is trained with: `run` would train its student and its control in the same way.

        method: of `methods`, or "control". changes: dotted keys of a candidate.
        """
        objective = {}
        if method != CONTROL:
            objective = self.methods[method].model_dump(mode="json", exclude={"candidates"}, exclude_unset=True)
        settings = {
            "student": self.students[student].to_json(),
            "objective": objective,
            "train": self.train.to_json(),
        }
        changed = override(settings, [f"{key}={json.dumps(value)}" for key, value in (changes or {}).items()])
        return build(Cell, changed, origin=f"the method {method}")

    def candidates(self, method: str) -> tuple[dict[str, Any], ...]:
        """Return what is tried for a method; nothing but the method itself where `trials` is 1."""
        if self.trials == 1:
            return ({},)
        return self.control.candidates if method == CONTROL else self.methods[method].candidates


def _wrong_names(config: CompareConfig) -> list[str]:
    if CONTROL not in config.methods:
        return []
    return ["methods.control: the control is always there. Give this method another name."]


def _unequal_budgets(config: CompareConfig) -> list[str]:
    problems = _unequal_trials(config)
    if config.teacher.mutual:
        problems.append("teacher.mutual makes another teacher for every cell; a comparison shares one.")
    searched = [name for name, method in config.methods.items() if method.method]
    problems += [f"methods.{name}.method: a search has a budget of its own; list `candidates`." for name in searched]
    if config.train.patience is not None:
        problems.append("train.patience ends some trainings earlier than others; a comparison has equal budgets.")
    return problems


def _unequal_trials(config: CompareConfig) -> list[str]:
    given = {f"methods.{name}": method.candidates for name, method in config.methods.items()}
    given["control"] = config.control.candidates
    if config.trials == 1:
        few = [name for name, candidates in given.items() if candidates]
        return [f"{name}.candidates are given, but trials is 1: set `trials` to how many there are." for name in few]
    problems = [
        f"{name}.candidates has {len(candidates)} of the {config.trials} settings to try. Every method and the "
        "control get the same number of trials, else the comparison favours those that had more."
        for name, candidates in given.items()
        if len(candidates) != config.trials
    ]
    for name, candidates in given.items():
        wrong = sorted({key for one in candidates for key in one if not key.startswith(TUNABLE)})
        problems += [f"{name}.candidates changes {key}; it may change {', '.join(TUNABLE)}." for key in wrong]
    return problems


def plan(config: CompareConfig) -> dict[tuple[str, str], list[Cell]]:
    """Return the settings of every candidate of every (student, method); raise one `ConfigError` with all mistakes."""
    problems: list[str] = []
    found: dict[tuple[str, str], list[Cell]] = {}
    for student in config.students:
        for method in (CONTROL, *config.methods):
            try:
                found[student, method] = [config.cell(student, method, one) for one in config.candidates(method)]
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return found
