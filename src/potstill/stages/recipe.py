"""The recipe: every choice of a run in one typed, frozen mapping (docs/recipes.md explains the keys)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.config import Config
from potstill.names import SafeName
from potstill.objectives.objective import Term, lecture_terms
from potstill.training.settings import TrainConfig


class DataConfig(Config):
    """Which images, and how they are split."""

    path: str = Field(description="a folder, archive or array file; 'digits' is built in")
    limit: int | None = Field(default=None, ge=2, description="use about this many images, stratified")
    validation: float = Field(default=0.1, gt=0, lt=1, description="share held out of train where there is no split")
    test: float = Field(default=0.2, gt=0, lt=1, description="share held out where the data has no test split")
    size: int | None = Field(default=None, ge=8, le=1024, description="pixels a side that photos are cut to")
    group: str | None = Field(default=None, description="pattern over file names whose match stays on one side")
    allow_empty: bool = Field(default=False, description="accept classes without images")
    seed: int = Field(default=0, ge=0, description="seed of the splits")


@dataclass(frozen=True)
class Views:
    """Which augmented views of the training images a training sees.

    augment: a policy, or "auto" for the one that suits the images. count: views of each image, seen in turn; None is
    one an epoch. fresh: another view in every pass over an image, without end, which nothing can store. seed: of the
    views, not of the order of the images. mix: how images of a batch are mixed, with strength `mix_alpha` > 0.
    """

    augment: str | list[Any] = "auto"
    count: int | None = None
    seed: int = 0
    fresh: bool = False
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = 0.2

    def number(self, epochs: int) -> int | None:
        """Return how many views there are in a training of so many epochs, None for endless ones."""
        return None if self.fresh else self.count or epochs


class CardConfig(Config):
    """What a teacher from elsewhere does not say of itself."""

    classes: tuple[str, ...] = Field(default=(), description="names, in the order of its outputs")
    mean: tuple[float, ...] | None = Field(default=None, description="of images in 0..1, one value a channel")
    std: tuple[float, ...] | None = Field(default=None, description="0.00392157 where it wants 0..255")
    size: tuple[int, int] | None = Field(default=None, description="(height, width) in pixels")
    output: Literal["logits", "probabilities", "labels"] | None = None


class OneTeacher(Config):
    """One teacher: a name to be trained, a name with weights, a folder, an ONNX file, or a file of answers."""

    model: str = "builtin:cnn"
    weights: str | None = None
    options: dict[str, Any] = {}
    card: CardConfig | None = None
    class_map: dict[str, str | tuple[str, ...] | None] = Field(
        default={}, description="{our class: its class}, where names differ; null where it has none"
    )


class Member(OneTeacher):
    """One of several teachers, and its weight among them."""

    weight: float = Field(default=1.0, gt=0)


class Assistant(Config):
    """A network between teacher and student: the teacher teaches it, and it teaches the next."""

    model: str
    options: dict[str, Any] = {}
    weights: str | None = None


class TeacherConfig(OneTeacher):
    """Who teaches: one teacher or an ensemble, directly or through a chain."""

    train: TrainConfig = TrainConfig(epochs=10)
    stored: bool = Field(default=True, description="ask once and keep the answers, instead of in every step")
    ensemble: tuple[Member, ...] = ()
    average: Literal["probabilities", "logits"] = "probabilities"
    assistants: tuple[Assistant, ...] = ()
    generations: int = Field(default=0, ge=0, description="born-again: how often the student teaches its like")
    mutual: bool = Field(default=False, description="teacher and student learn together, from each other")

    @model_validator(mode="after")
    def _one_or_several(self) -> TeacherConfig:
        if self.ensemble and (self.model != "builtin:cnn" or self.weights):
            raise ValueError("it gives both `model` and `ensemble`. List every teacher under `ensemble`.")
        if self.mutual and (self.ensemble or self.assistants or self.generations):
            raise ValueError("with `mutual` one network learns beside the student: leave out what else is there.")
        return self


class StudentConfig(Config):
    """Who learns, and how many of the labels it gets (null: all of them)."""

    model: str = "builtin:mlp"
    options: dict[str, Any] = {}
    weights: str | None = None
    aux: tuple[str, ...] = Field(default=(), description="stages that get a side head, in training only")
    labels: int | None = Field(default=None, ge=1)
    labelled_share: float = Field(default=0.5, gt=0, le=1, description="of each batch, where some images lack a label")


class ObjectiveConfig(Config):
    """alpha * CE + (1 - alpha) * loss; or `terms`, any losses with any weights; or `method: auto`, a search."""

    method: Literal["auto"] | None = Field(default=None, description="auto: a short search on validation for the terms")
    search: int | None = Field(default=None, ge=1, description="epochs the search may take; null: two trainings' worth")
    alpha: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)
    loss: str = "kd"
    terms: tuple[Term, ...] = ()
    aux_weight: float = Field(default=0.3, ge=0)

    @model_validator(mode="after")
    def _terms_or_alpha(self) -> ObjectiveConfig:
        fields = type(self).model_fields
        given = [name for name in ("alpha", "temperature", "loss") if getattr(self, name) != fields[name].default]
        if self.method and (given or self.terms):
            raise ValueError(
                "gives `method: auto` and terms of its own. The search finds the terms: leave the others out."
            )
        if self.terms and given:
            raise ValueError(
                f"gives both `terms` and {', '.join(given)}. With `terms`, each loss carries its own weight and "
                "options: leave the others out."
            )
        return self

    @property
    def loss_terms(self) -> tuple[Term, ...]:
        """The terms, spelled out where only alpha, temperature and loss are given."""
        return self.terms or lecture_terms(alpha=self.alpha, temperature=self.temperature, loss=self.loss)

    def completed(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return `part` with the defaults of a command, but for alpha and temperature where it has its own terms."""
        own = bool(part.get("terms") or part.get("method"))
        return dict(part) if own else super().completed(part)


class ExportConfig(Config):
    """Which files come out."""

    int8: bool = True
    calibration: int = Field(default=512, ge=8, description="training images that calibrate the 8-bit file")


class Recipe(Config):
    """One run: data, teacher, student, objective, budget, seeds."""

    name: SafeName = "run"
    title: str = ""
    data: DataConfig
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    augment: str | list[Any] = "auto"
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = Field(default=0.2, gt=0)
    views: int | None = Field(default=None, ge=1, description="how many views of each image; null: one an epoch")
    seeds: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0, description="the first seed")
    export: ExportConfig = ExportConfig()
    comparisons: dict[SafeName, dict[str, Any]] = Field(default={}, description="other settings, compared the same way")

    @property
    def view_count(self) -> int:
        """Number of views of each image: one an epoch where the recipe does not say."""
        return self.views or self.train.epochs

    @property
    def training_views(self) -> Views:
        """The views that student and control see."""
        return Views(self.augment, self.views, self.seed, mix=self.mix, mix_alpha=self.mix_alpha)
