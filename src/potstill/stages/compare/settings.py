"""The recipe of a comparison: methods x students x seeds with one data set, one teacher and one budget."""

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
    """The students without a teacher, and the settings to try for them if `trials` is above 1."""

    candidates: tuple[dict[str, Any], ...] = Field(default=(), description="settings to try, one per trial")


class MethodConfig(ObjectiveConfig):
    """A method: an objective, and the settings to try for it if `trials` is above 1 (`objective.temperature: 4`)."""

    candidates: tuple[dict[str, Any], ...] = Field(default=(), description="settings to try, one per trial")


class Cell(Config):
    """The student, objective (unless it is a control) and training settings of a cell."""

    student: StudentConfig
    objective: ObjectiveConfig
    train: TrainConfig


class CompareConfig(Config):
    """One comparison. Every cell has the same data, teacher, views, steps and number of tuning trials.

    trials: number of settings of each method, and of the control, that are trained with a separate seed and compared on
    validation; the best one is then trained with every seed. 1 trains the settings as they are.
    """

    name: SafeName = "compare"
    title: str = ""
    data: DataConfig
    teacher: TeacherConfig = TeacherConfig()
    students: dict[SafeName, StudentConfig] = Field(min_length=1)
    methods: dict[SafeName, MethodConfig] = Field(min_length=1)
    control: ControlConfig = ControlConfig()
    trials: int = Field(default=1, ge=1, description="settings to try for each method and the control")
    train: TrainConfig = TrainConfig()
    augment: str | list[Any] = "auto"
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = Field(default=0.2, gt=0)
    views: int | None = Field(default=None, ge=1, description="number of views of each image; null: one per epoch")
    seeds: int = Field(default=3, ge=1, description="number of seeds")
    seed: int = Field(default=0, ge=0, description="the first random seed")

    @model_validator(mode="after")
    def _equal(self) -> CompareConfig:
        problems = [*_wrong_names(self), *_unequal_budgets(self)]
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def view_count(self) -> int:
        """Number of views of each image: by default one per epoch."""
        return self.views or self.train.epochs

    @property
    def training_views(self) -> Views:
        """The views on which every student is trained."""
        return Views(self.augment, self.views, self.seed, mix=self.mix, mix_alpha=self.mix_alpha)

    def cell(self, student: str, method: str, changes: dict[str, Any] | None = None) -> Cell:
        """Return the settings of a cell, with which `run` would train the same student and control.

        method: a key of `methods`, or "control". changes: dotted keys of a candidate.
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
        """Return the candidates of a method; only the method itself if `trials` is 1."""
        if self.trials == 1:
            return ({},)
        return self.control.candidates if method == CONTROL else self.methods[method].candidates


def _wrong_names(config: CompareConfig) -> list[str]:
    if CONTROL not in config.methods:
        return []
    return ["methods.control: the name control is reserved for the control. Rename the method."]


def _unequal_budgets(config: CompareConfig) -> list[str]:
    problems = _unequal_trials(config)
    if config.teacher.mutual:
        problems.append("teacher.mutual trains another teacher for every cell, but a comparison has one. Leave it out.")
    searched = [name for name, method in config.methods.items() if method.method]
    problems += [
        f"methods.{name}.method: a search has a budget of its own, but all methods must have the same. List "
        "`candidates` instead."
        for name in searched
    ]
    if config.train.patience is not None:
        problems.append("train.patience stops some trainings early, but a comparison has equal budgets. Leave it out.")
    return problems


def _unequal_trials(config: CompareConfig) -> list[str]:
    listed = {f"methods.{name}": method.candidates for name, method in config.methods.items()}
    listed["control"] = config.control.candidates
    if config.trials == 1:
        return [
            f"{name}.candidates has {len(candidates)} settings, but trials is 1: set trials to {len(candidates)}."
            for name, candidates in listed.items()
            if candidates
        ]
    problems = [
        f"{name}.candidates has {len(candidates)} of {config.trials} settings to try. Every method and the control "
        "must have the same number of trials; otherwise the comparison favours those with more."
        for name, candidates in listed.items()
        if len(candidates) != config.trials
    ]
    for name, candidates in listed.items():
        wrong = sorted({key for one in candidates for key in one if not key.startswith(TUNABLE)})
        problems += [f"{name}.candidates changes {key}; it may change {', '.join(TUNABLE)}." for key in wrong]
    return problems


def plan(config: CompareConfig) -> dict[tuple[str, str], list[Cell]]:
    """Return the settings of every candidate of every (student, method); raise one `ConfigError` with all problems."""
    problems: list[str] = []
    cells: dict[tuple[str, str], list[Cell]] = {}
    for student in config.students:
        for method in (CONTROL, *config.methods):
            try:
                cells[student, method] = [config.cell(student, method, one) for one in config.candidates(method)]
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return cells
