"""Settings of `shrink`: images, budgets, time, and what the search may use."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from potstill.config import Bytes, Config, Count, Minutes
from potstill.stages.recipe import DataConfig, GoalConfig, OneTeacher

WORTH_PROCESSES = 6.0  # minutes
VALIDATION = 0.2  # choosing among many candidates needs more validation images than one training does


class Budgets(GoalConfig):
    """What the model may cost on the device, and what it must reach. Budgets only filter: they train nothing anew."""

    max_ram: Bytes | None = Field(default=None, description="maximum peak of the activations in bytes, in 8 bits")
    max_macs: Count | None = Field(default=None, description="maximum multiply-accumulates per image")

    @property
    def limits(self) -> dict[str, float]:
        """The limits of size and speed that are set, by name."""
        names = ("max_bytes", "max_latency", "max_ram", "max_macs")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def wants_accuracy(self) -> bool:
        """Whether an accuracy is to be reached, so that the smallest model that does is wanted."""
        return self.min_accuracy is not None or self.max_drop is not None


class Pretrained(Config):
    """A pretrained network beside those of the installed packages: its name, weights and normalisation."""

    model: str
    weights: str
    options: dict[str, Any] = {}
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class ShrinkConfig(Config):
    """One search for the smallest model that does the job (docs/shrink.md)."""

    data: DataConfig
    budgets: Budgets = Budgets()
    minutes: Minutes = Field(default=30.0, ge=0.1, description="time for everything, in minutes")
    teacher: OneTeacher | None = Field(default=None, description="null: the best pretrained network, or trained here")
    pretrained: tuple[Pretrained, ...] = Field(default=(), description="more pretrained networks to start from")
    to: tuple[Literal["onnx", "openvino", "executorch", "tflite", "c"], ...] = Field(
        default=(), description="files for other runtimes, beside ONNX"
    )
    device: str | None = Field(default=None, description="profile of a device (bench --device-profile): latency there")
    seeds: int = Field(default=3, ge=1, description="number of seeds of the proof")
    seed: int = Field(default=0, ge=0, description="the first random seed")
    workers: int | None = Field(
        default=None, ge=1, description="trainings at a time; null: one for each core, up to 4, if there is time for it"
    )

    reusable: ClassVar[tuple[str, ...]] = ("budgets", "minutes", "workers", "to")

    @property
    def processes(self) -> int:
        """Trainings at a time; starting processes pays only if there are minutes of training."""
        if self.workers is not None:
            return self.workers
        return 1 if self.minutes < WORTH_PROCESSES else min(len(os.sched_getaffinity(0)), 4)

    @model_validator(mode="before")
    @classmethod
    def _more_validation(cls, settings: dict[str, Any]) -> dict[str, Any]:
        data = settings.get("data")
        return {**settings, "data": {"validation": VALIDATION, **data}} if isinstance(data, dict) else settings
