"""How to train: the budget, the optimizer, and how the work is done."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from potstill.config import Config
from potstill.words import plural


class TrainConfig(Config):
    """How to train: the budget and the optimizer.

    Nothing but `precision` and `compile` depends on the machine. "auto" measures for two seconds what is fastest
    here, says what it chose, and keeps to it: in every training of the same network, and when a run is resumed.
    """

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=128, ge=1, description="images a step, over all processes")
    accumulate: int = Field(default=1, ge=1, description="parts that a batch is computed in, to save memory")
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=0.002, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which lr rises from 0")
    clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(
        default=None, ge=0, lt=1, description="keep a moving average of the weights, decay 0..1; 0 is none"
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", True, False] = Field(default="auto", description="torch.compile")
    select: Literal["last", "best"] = Field(default="last", description="which epoch's weights are kept")
    patience: int | None = Field(default=None, ge=1, description="epochs without a better validation that end training")

    @model_validator(mode="after")
    def _parts_have_rows(self) -> TrainConfig:
        if self.accumulate > self.batch_size:
            batch = plural(self.batch_size, "image")
            raise ValueError(f"accumulate={self.accumulate} cuts a batch of {batch} into empty parts.")
        return self

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0..steps-1."""
        rise = self.warmup * steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
