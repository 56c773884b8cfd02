"""Settings of a self-training: unlabelled images, teachers, students, noise."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.config import Config
from potstill.names import SafeName
from potstill.stages.recipe import DataConfig, StudentConfig, TeacherConfig
from potstill.training.settings import TrainConfig

VALIDATION = 0.2  # a tenth of few labels is too small to measure accuracy


class TransferConfig(Config):
    """How teachers with pretrained weights are fitted to the labels (docs/finetuning.md)."""

    views: int = Field(default=4, ge=0, description="augmented views of each image that the probes are fitted on")
    penalty: float | None = Field(default=None, gt=0, description="L2 penalty of the probes; null: cross-validated")
    unfreeze: Literal["none", "all"] | int = Field(default="all", description="number of last stages to fine-tune")
    epochs: int = Field(default=10, ge=1, description="epochs of fine-tuning")


class SelftrainConfig(Config):
    """One self-training: Noisy Student (arXiv:1911.04252), two simpler forms of it, FixMatch or FreeMatch.

    Plain pseudo-labelling is labelling="hard", noise="none", rounds=0; soft distillation over the pool is rounds=0;
    Noisy Student is rounds > 0. With method="fixmatch" (arXiv:2001.07685) or "freematch" (arXiv:2205.07246) the first
    student of the rounds (`large`, or else `student`) labels the pool itself. steps: the budget of every student, with
    the pool or without; it determines `train.epochs`.
    """

    name: SafeName = "selftrain"
    data: DataConfig
    labels: int | None = Field(
        default=None, ge=2, description="use only this many labels; the other images join the pool"
    )
    corrections: str | None = Field(default=None, description="labels.csv of an earlier run, with labels filled in")
    teachers: tuple[TeacherConfig, ...] = (TeacherConfig(),)
    transfer: TransferConfig = TransferConfig()
    folds: int = Field(default=4, ge=2, description="cross-validation folds; a teacher trained here has one model each")
    student: StudentConfig = StudentConfig()
    large: StudentConfig | None = Field(default=None, description="student of the rounds; null: `student` itself")
    rounds: int = Field(default=2, ge=0, le=8, description="rounds in which the student becomes the teacher")
    method: Literal["teachers", "fixmatch", "freematch"] = Field(
        default="teachers",
        description="labels of the first student in the rounds: of the teachers, or its own",
    )
    threshold: float = Field(default=0.95, ge=0, le=1, description="fixmatch: minimum confidence of the weak view")
    labelling: Literal["soft", "hard"] = Field(default="soft", description="soft or hard pseudo-labels")
    min_confidence: float = Field(default=0.3, ge=0, lt=1, description="minimum confidence of a pseudo-label")
    quota: int | None = Field(default=None, ge=1, description="pool images per class; null: proportional to the labels")
    copies: int = Field(default=5, ge=1, description="maximum repetitions of an image of a rare class")
    max_distance: float = Field(
        default=1.5, gt=0, description="maximum feature distance to the labelled images (1: as held-out images)"
    )
    unlabelled_weight: float = Field(default=1.0, gt=0, description="weight of the soft labels' loss (labels: 1)")
    noise: str | list[Any] = Field(default="auto", description="augmentation: auto (by model size), none, or a policy")
    teacher_noise: str | list[Any] | None = Field(
        default=None, description="noise of the teachers that are trained here; null: as `noise`"
    )
    large_noise: str | list[Any] | None = Field(
        default=None, description="noise of the large student; null: as `noise`"
    )
    clean: float = Field(default=0.05, ge=0, lt=1, description="fraction of steps added at the end without noise")
    steps: int = Field(default=2000, ge=1, description="training steps of every student")
    teacher_steps: int = Field(default=1000, ge=1, description="training steps of every model of a teacher")
    train: TrainConfig = TrainConfig(batch_size=128)
    crossfit: bool = Field(default=True, description="evaluate the pool on folds of the labels too")
    seeds: int = Field(default=3, ge=1, description="number of seeds")
    seed: int = Field(default=0, ge=0, description="the first random seed")
    to_review: int = Field(default=50, ge=0, description="number of images to propose for labelling by hand")

    @model_validator(mode="before")
    @classmethod
    def _validation(cls, settings: dict[str, Any]) -> dict[str, Any]:
        data = settings.get("data")
        return {**settings, "data": {"validation": VALIDATION, **data}} if isinstance(data, dict) else settings

    @property
    def method_of_student(self) -> str:
        """The method of `student` itself: "teachers" if there is a `large` one."""
        return "teachers" if self.large else self.method

    @property
    def batch_size(self) -> int:
        """The images of a step of every training."""
        assert self.train.batch_size is not None, "checked with the settings"
        return self.train.batch_size

    @model_validator(mode="after")
    def _has_batch_size(self) -> SelftrainConfig:
        if self.train.batch_size is None:
            raise ValueError("train.batch_size is null, but students need steps of one size. Give it, such as 128.")
        return self

    @model_validator(mode="after")
    def _has_teachers(self) -> SelftrainConfig:
        if not self.teachers:
            raise ValueError("teachers is empty. Give at least one, such as builtin:cnn, to label the pool.")
        return self
