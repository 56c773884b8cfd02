"""The recipe of an experiment: knobs, steps, and what is read from their summaries."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from potstill.config import Config
from potstill.names import SafeName

Budget = Literal["quick", "full"]
BUDGETS: tuple[Budget, ...] = ("quick", "full")


class StepConfig(Config):
    """One step: a stage with its settings, repeated for every combination of the values in `each`.

    In settings, `$NAME` stands for a knob, for a value of `each`, or for the folder of an earlier step.
    """

    stage: Literal["train", "distill", "compare", "finetune", "selftrain", "prune", "quantize"]
    each: dict[SafeName, Any] = Field(
        default={}, description="{name: list of values, {label: value}, or a number of values from 0}"
    )
    settings: dict[str, Any]


class RowConfig(Config):
    """Rows of the table. `of`: pattern of the names of results, in which {name} stands for a part without a slash."""

    of: str
    label: str = Field(default="", description="text of the row, with {name} from the pattern; empty: its name")
    korean: str = Field(default="", description="the same in Korean; empty: `label`")


class PlotConfig(Config):
    """One plot: a line for every value of `lines`, over x.

    of: pattern as in a row, or several with " | " between. x, y: a part {name} of the pattern or a measure of the
    results; `epoch` and a measure of an epoch, or `layer` and a measure of a layer. lines: a part of the pattern.
    """

    title: str
    korean: str = ""
    of: str
    x: str
    y: str
    lines: str = ""
    x_label: str = ""
    y_label: str = ""
    log: tuple[Literal["x", "y"], ...] = ()


class GoalConfig(Config):
    """A goal: the mean of a result is at least, or at most, a value."""

    text: str
    korean: str = ""
    of: str
    measure: str = "accuracy"
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one(self) -> GoalConfig:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("must give either at_least or at_most.")
        return self


class ClaimConfig(Config):
    """A statement of the lecture: the first result is higher than the second in `measure`, by its seeds in pairs."""

    text: str
    korean: str = ""
    more: str
    than: str
    measure: str = "accuracy"


class PublishedConfig(Config):
    """A published figure and its source."""

    what: str
    korean: str = ""
    value: str
    source: str


class KoreanConfig(Config):
    """The texts of the record in Korean."""

    title: str = ""
    shows: str = ""
    explained: str = ""


class ExperimentConfig(Config):
    """One experiment.

    shows: what a reader sees in it. data: the images it is made for, in words. needs: what to give for each knob that
    is null. minutes: about how long it takes on two cores, by budget. knobs: named values; `budgets` has other values
    of them. columns: measures in the table. explained: why its results differ from the published ones.

    A folder with other settings than its name can be continued: each step knows its own settings, and refuses others.
    """

    reusable: ClassVar[tuple[str, ...]] = (
        "title", "shows", "data", "needs", "minutes", "knobs", "budgets", "steps", "rows", "columns", "plots", "goals",
        "claims", "published", "explained", "korean",
    )  # fmt: skip

    name: SafeName
    title: str
    shows: str
    data: str
    needs: dict[str, str] = {}
    minutes: dict[Budget, float] = {}
    knobs: dict[str, Any] = {}
    budgets: dict[Budget, dict[str, Any]] = {}
    steps: dict[SafeName, StepConfig] = Field(min_length=1)
    rows: tuple[RowConfig, ...] = ()
    columns: tuple[str, ...] = ("accuracy", "interval", "parameters")
    plots: tuple[PlotConfig, ...] = ()
    goals: tuple[GoalConfig, ...] = ()
    claims: tuple[ClaimConfig, ...] = ()
    published: tuple[PublishedConfig, ...] = ()
    explained: str = ""
    korean: KoreanConfig = KoreanConfig()

    @model_validator(mode="after")
    def _names(self) -> ExperimentConfig:
        names = [*self.knobs, *self.steps]
        each = {name for step in self.steps.values() for name in step.each}
        if twice := sorted({name for name in names if names.count(name) > 1} | (each & set(names))):
            raise ValueError(f"uses {', '.join(twice)} for several of knobs, steps and `each`. Rename one of them.")
        if unknown := sorted({name for changes in self.budgets.values() for name in changes} - set(self.knobs)):
            raise ValueError(f"`budgets` changes {', '.join(unknown)}, which `knobs` does not have.")
        return self
