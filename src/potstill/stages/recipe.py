"""The recipe: all settings of a run in one typed, frozen mapping (docs/recipes.md documents the keys)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from potstill.config import Bytes, Config, Milliseconds
from potstill.evaluation.rejection import required_precision
from potstill.evaluation.shipping import Goal
from potstill.model_files.onnx_input import InputForm
from potstill.models.card import Fit
from potstill.names import SafeName
from potstill.objectives.objective import Term, lecture_terms
from potstill.quantities import to_target
from potstill.training.settings import TrainConfig

AUTO = "auto"
"""As a teacher's or student's name: chosen by the images (`stages.distill.defaults`)."""


def _requirement(text: str) -> str:
    if text != "none":
        required_precision(text)
    return text


def _target(text: str) -> str:
    to_target(text)
    return text


Requirement = Annotated[str, AfterValidator(_requirement)]
"""A setting that takes precision>=0.99, or none (docs/export.md)."""
TargetDevice = Annotated[str, AfterValidator(_target)]
"""A setting that takes NAME:FLASH/RAM, such as cortex-m4:256k/64k."""
REJECT = "answer only where precision>=0.99, or another, is guaranteed; null: as the model; none: always"
TARGET = "device that the model must fit on: NAME:FLASH/RAM"


class DataConfig(Config):
    """Images and their splits."""

    path: str = Field(description="a folder, archive or array file; 'digits' is built in")
    limit: int | None = Field(default=None, ge=2, description="use about this many images, stratified")
    validation: float = Field(
        default=0.1, gt=0, lt=1, description="fraction of train held out if there is no validation split"
    )
    test: float = Field(default=0.2, gt=0, lt=1, description="fraction held out if there is no test split")
    test_from: Literal["train", "val", "none"] | None = Field(
        default=None,
        description="what becomes the test split if there is none: images of train or half of val (the default where "
        "there is one), or none: the test figures are those of validation",
    )
    size: int | None = Field(default=None, ge=8, le=1024, description="input size of photos in pixels per side")
    fit: Fit = Field(default="crop", description="photos of another shape: crop, letterbox (whole, on grey) or stretch")
    group: str | None = Field(
        default=None, description="pattern of paths below the data, 'near-copies' or 'exif': what stays in one split"
    )
    allow_empty: bool = Field(default=False, description="accept classes without images")
    unlabelled: str | None = Field(
        default=None, description="a folder, archive or array file of images without labels, for training too"
    )
    seed: int = Field(default=0, ge=0, description="random seed of the splits")


@dataclass(frozen=True)
class Views:
    """The augmented views of the training images.

    augment: a policy, or "auto" to choose by kind of image. count: number of views of each image, used in turn; None is
    one per epoch. fresh: a new view in every pass over an image, so that teacher outputs cannot be cached. seed: of the
    views, not of the order of the images. mix: mixing of the images of a batch, with strength `mix_alpha` > 0.
    """

    augment: str | list[Any] = "auto"
    count: int | None = None
    seed: int = 0
    fresh: bool = False
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = 0.2

    def number(self, epochs: int) -> int | None:
        """Return the number of views in a training of so many epochs, None if every pass has new ones."""
        return None if self.fresh else 1 if self.alike else self.count or epochs

    @property
    def alike(self) -> bool:
        """Whether all views of an image are the image, so that a teacher's outputs for one are those for all."""
        return self.augment in ("none", [], ["none"]) and self.mix is None


class CardConfig(Config):
    """The classes and preprocessing of a teacher whose file does not contain them."""

    classes: tuple[str, ...] = Field(default=(), description="class names in the order of the outputs")
    mean: tuple[float, ...] | None = Field(default=None, description="mean of images in 0..1, one value per channel")
    std: tuple[float, ...] | None = Field(
        default=None, description="standard deviation; 0.00392157 for input in 0..255"
    )
    size: tuple[int, int] | None = Field(default=None, description="input size (height, width) in pixels")
    output: Literal["logits", "probabilities", "labels"] | None = Field(
        default=None, description="kind of output; null: detected from the values"
    )


class OneTeacher(Config):
    """One teacher: a name to be trained, a name with weights, a folder, an ONNX file, or a file of predictions."""

    model: str = Field(default="builtin:cnn", description="name, folder, ONNX file or file of predictions")
    weights: str | None = Field(default=None, description="for a name: a file of weights, package:NAME, hub or auto")
    new_head: bool = Field(
        default=False, description="the weights are of other classes: fit a linear probe as the head for these classes"
    )
    options: dict[str, Any] = Field(default={}, description="options of the architecture")
    card: CardConfig | None = None
    class_map: dict[str, str | tuple[str, ...] | None] = Field(
        default={}, description="{class of the data: class of the teacher}, if names differ; null: it has none"
    )


class Member(OneTeacher):
    """One teacher of an ensemble, and its weight."""

    weight: float = Field(default=1.0, gt=0, description="weight in the average")


class Assistant(Config):
    """A teacher assistant: distilled from the teacher, and the teacher of the next network."""

    model: str
    options: dict[str, Any] = {}
    weights: str | None = None


class TeacherConfig(OneTeacher):
    """One teacher or an ensemble, directly or through a chain of assistants."""

    train: TrainConfig = TrainConfig(epochs=10)
    stored: bool = Field(default=True, description="cache teacher logits on disk, instead of computing them each step")
    ensemble: tuple[Member, ...] = ()
    average: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="what the ensemble averages"
    )
    assistants: tuple[Assistant, ...] = ()
    generations: int = Field(default=0, ge=0, description="born-again generations before the student")
    mutual: bool = Field(default=False, description="deep mutual learning: teacher and student are trained together")

    @model_validator(mode="after")
    def _one_or_several(self) -> TeacherConfig:
        if self.ensemble and (self.model not in ("builtin:cnn", AUTO) or self.weights):
            raise ValueError("has both `model` and `ensemble`. List every teacher under `ensemble`.")
        if self.mutual and (self.ensemble or self.assistants or self.generations):
            raise ValueError(
                "`mutual` trains one network with the student: leave out `ensemble`, `assistants` and `generations`."
            )
        return self


class StudentConfig(Config):
    """The student, and the number of labels it is trained with (null: all)."""

    model: str = Field(default="builtin:mlp", description="name (NAME@LAYER truncates it) or folder")
    options: dict[str, Any] = Field(default={}, description="options of the architecture")
    weights: str | None = Field(
        default=None,
        description="initial weights of any classes, for a name: as in teacher.weights, or blocks:FILE",
    )
    size: int | None = Field(default=None, ge=8, le=1024, description="input size in pixels per side, for a name")
    aux: tuple[str, ...] = Field(default=(), description="stages with an auxiliary head during training")
    labels: int | None = Field(default=None, ge=1, description="number of labels to use; null: all")
    labelled_share: float = Field(
        default=0.5, gt=0, le=1, description="fraction of labelled images in each batch, if some are unlabelled"
    )


class ObjectiveConfig(Config):
    """alpha * CE + (1 - alpha) * loss; or `terms`, any losses with any weights; or `method: auto`, a search."""

    method: Literal["auto"] | None = Field(default=None, description="auto: search the terms on validation")
    search: int | None = Field(default=None, ge=1, description="epochs of the search; null: 2 * train.epochs")
    alpha: float = Field(default=0.1, ge=0, le=1, description="weight of the cross-entropy with the labels")
    temperature: float = Field(default=2.0, gt=0, description="temperature of the distillation loss")
    loss: str = Field(default="kd", description="distillation loss")
    terms: tuple[Term, ...] = ()
    aux_weight: float = Field(default=0.3, ge=0, description="weight of the losses of auxiliary heads")

    @model_validator(mode="after")
    def _terms_or_alpha(self) -> ObjectiveConfig:
        fields = type(self).model_fields
        changed = [name for name in ("alpha", "temperature", "loss") if getattr(self, name) != fields[name].default]
        if self.method and (changed or self.terms):
            raise ValueError(
                "has both `method: auto` and terms. The search determines the terms: leave the others out."
            )
        if self.terms and changed:
            raise ValueError(
                f"has both `terms` and {', '.join(changed)}. In `terms`, each loss has its own weight and options: "
                "leave the others out."
            )
        return self

    @property
    def loss_terms(self) -> tuple[Term, ...]:
        """The terms, built from alpha, temperature and loss if they are not given."""
        return self.terms or lecture_terms(alpha=self.alpha, temperature=self.temperature, loss=self.loss)

    def completed(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return `part` with the defaults of a command; without alpha and temperature if it has its own terms."""
        own = bool(part.get("terms") or part.get("method"))
        return dict(part) if own else super().completed(part)


class GoalConfig(Config):
    """What the shipped file must reach and may cost: the report states whether it does."""

    min_accuracy: float | None = Field(default=None, gt=0, le=100, description="minimum accuracy in percent")
    max_drop: float | None = Field(default=None, ge=0, le=100, description="maximum points below the teacher")
    max_bytes: Bytes | None = Field(default=None, description="maximum bytes of the file that is shipped")
    max_latency: Milliseconds | None = Field(
        default=None, description="maximum latency in milliseconds: one image, one thread, this machine"
    )

    @property
    def goal(self) -> Goal:
        """The same for the verdict."""
        return Goal(self.min_accuracy, self.max_drop, self.max_bytes, self.max_latency)


class ExportConfig(Config):
    """The exported files."""

    int8: bool = Field(default=True, description="also export a file quantized to 8 bits")
    input: InputForm = Field(
        default="raw", description="what the ONNX files take: raw (photos of any size) or prepared (float32 in 0..1)"
    )
    calibration: int = Field(default=512, ge=8, description="training images for calibration of the 8-bit file")


class Recipe(Config):
    """One run: data, teacher, student, objective, budget, seeds."""

    name: SafeName = "run"
    title: str = ""
    data: DataConfig
    teacher: TeacherConfig = TeacherConfig(model=AUTO)
    student: StudentConfig = StudentConfig(model=AUTO)
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    augment: str | list[Any] = "auto"
    mix: Literal["mixup", "cutmix"] | None = None
    mix_alpha: float = Field(default=0.2, gt=0)
    views: int | None = Field(default=None, ge=1, description="number of views of each image; null: one per epoch")
    seeds: int = Field(default=3, ge=1, description="number of seeds")
    seed: int = Field(default=0, ge=0, description="the first random seed")
    export: ExportConfig = ExportConfig()
    goal: GoalConfig = GoalConfig()
    reject: Requirement | None = Field(default=None, description=REJECT)
    target: TargetDevice | None = Field(default=None, description=TARGET)
    comparisons: dict[SafeName, dict[str, Any]] = Field(default={}, description="other settings to compare, by name")

    reusable: ClassVar[tuple[str, ...]] = ("goal",)

    @property
    def view_count(self) -> int:
        """Number of views of each image: by default one per epoch."""
        return self.views or self.train.epochs

    @property
    def training_views(self) -> Views:
        """The views on which student and control are trained."""
        return Views(self.augment, self.views, self.seed, mix=self.mix, mix_alpha=self.mix_alpha)
