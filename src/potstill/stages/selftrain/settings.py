"""Every choice of a self-training: where the images without labels lie, who labels them, who learns, how noisily."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.config import Config
from potstill.names import SafeName
from potstill.stages.recipe import DataConfig, StudentConfig, TeacherConfig
from potstill.training.settings import TrainConfig

VALIDATION = 0.2  # of few labels a tenth is no measure


class TransferConfig(Config):
    """How a teacher with pretrained weights is made of the labels (docs/finetuning.md)."""

    views: int = Field(default=4, ge=0, description="augmented views of each image that its probes are fitted on")
    penalty: float | None = Field(default=None, gt=0, description="of the probes; null chooses one by folds")
    unfreeze: Literal["none", "all"] | int = Field(default="all", description="how many of the last stages learn")
    epochs: int = Field(default=10, ge=1, description="of fine-tuning")


class SelftrainConfig(Config):
    """One self-training (Noisy Student, arXiv:1911.04252, its two plainer forms, FixMatch and FreeMatch).

    Plain pseudo-labelling is labelling="hard", noise="none", rounds=0; soft distillation over the pool is rounds=0;
    Noisy Student is the rest; method="fixmatch" (arXiv:2001.07685) and "freematch" (arXiv:2205.07246) let the first
    that learns in the rounds (`large`, or the student) label for itself. steps: the budget of every student, with the
    pool or without, so `train.epochs` is set from it.
    """

    name: SafeName = "selftrain"
    data: DataConfig
    unlabelled: str | None = Field(default=None, description="a folder, archive or array file of images without labels")
    labels: int | None = Field(
        default=None, ge=2, description="use only so many labels; the other images join the pool"
    )
    corrections: str | None = Field(default=None, description="a CSV of an earlier run in which labels were filled in")
    teachers: tuple[TeacherConfig, ...] = (TeacherConfig(),)
    transfer: TransferConfig = TransferConfig()
    folds: int = Field(default=4, ge=2, description="models a teacher that is trained here consists of")
    student: StudentConfig = StudentConfig()
    large: StudentConfig | None = Field(default=None, description="learns in the rounds; null: the student itself")
    rounds: int = Field(default=2, ge=0, le=8, description="in which a student becomes the teacher")
    method: Literal["teachers", "fixmatch", "freematch"] = Field(
        default="teachers",
        description="who labels for the first to learn in the rounds: teachers, or itself",
    )
    threshold: float = Field(default=0.95, ge=0, le=1, description="of fixmatch: how sure the weak view must be")
    labelling: Literal["soft", "hard"] = "soft"
    floor: float = Field(default=0.3, ge=0, lt=1, description="confidence below which an image is left out")
    quota: int | None = Field(default=None, ge=1, description="pool images a class; null: in proportion to the labels")
    copies: int = Field(default=5, ge=1, description="how often an image of a rare class may be repeated")
    far: float = Field(default=1.5, gt=0, description="times the distance of held-out images, beyond which one is left")
    unlabelled_weight: float = Field(default=1.0, gt=0, description="of the soft labels' term; the labels' has 1")
    noise: str | list[Any] = Field(default="auto", description="auto (by the model's size), none, or a policy")
    teacher_noise: str | list[Any] | None = Field(
        default=None, description="of the teachers that are trained here; null: as noise"
    )
    large_noise: str | list[Any] | None = Field(default=None, description="of the large student; null: as noise")
    clean: float = Field(default=0.05, ge=0, lt=1, description="share of the steps added at the end without noise")
    steps: int = Field(default=2000, ge=1, description="of every student")
    teacher_steps: int = Field(default=1000, ge=1, description="of every model of a teacher that is trained here")
    train: TrainConfig = TrainConfig()
    crossfit: bool = Field(default=True, description="judge the pool on folds of the labels too, not only validation")
    seeds: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)
    worth: int = Field(default=50, ge=0, description="how many images to propose for labelling by hand")

    @model_validator(mode="before")
    @classmethod
    def _validation(cls, given: dict[str, Any]) -> dict[str, Any]:
        data = given.get("data")
        return {**given, "data": {"validation": VALIDATION, **data}} if isinstance(data, dict) else given

    @property
    def method_of_student(self) -> str:
        """Who labels the pool for the student itself: a small one beside `large` learns from teachers."""
        return "teachers" if self.large else self.method

    @model_validator(mode="after")
    def _somebody_labels(self) -> SelftrainConfig:
        if not self.teachers:
            raise ValueError("teachers is empty: somebody must label the pool. Give one, such as builtin:cnn.")
        return self
