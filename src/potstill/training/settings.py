"""Settings of training: budget, optimizer, precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.config import Config

SGD_LR = 0.05
"""With momentum, for batches of 64 to 128: of the settings of CRD (arXiv:1910.10699) and most of its successors."""


class TrainConfig(Config):
    """Settings of training: budget and optimizer.

    Only `precision` and `compile` depend on the machine. "auto" measures for two seconds which is fastest, notes the
    choice, and uses it in every training of the same network, and when a run is resumed.
    """

    epochs: int = Field(default=30, ge=1, description="number of epochs")
    batch_size: int | None = Field(
        default=None, ge=1, description="images per step, over all processes; null: 128, 32 of fewer than 1,000 images"
    )
    accumulate: int = Field(default=1, ge=1, description="gradient accumulation: parts of a batch, to save memory")
    optimizer: Literal["sgd", "adamw"] = Field(default="adamw", description="optimizer")
    lr: float = Field(default=0.002, gt=0, description="peak learning rate; of sgd 0.05 if it is not given")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay, except for norms and biases")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning-rate schedule")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="fraction of the steps of linear warmup")
    clip: float | None = Field(default=None, gt=0, description="maximum gradient norm")
    ema: float | None = Field(
        default=None, ge=0, lt=1, description="decay of the moving average of the weights; null or 0: none"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="precision of training")
    compile: Literal["auto", True, False] = Field(default="auto", description="whether to use torch.compile")
    channels_last: bool | None = Field(
        default=None, description="memory format of images and weights; null: chosen with the precision"
    )
    batchnorm: Literal["adapted", "fixed"] = Field(
        default="adapted", description="statistics of BatchNorm: fixed keeps those of pretrained weights"
    )
    select: Literal["last", "best", "balanced"] = Field(
        default="last", description="epoch whose weights are kept: balanced is the best by balanced accuracy"
    )
    balance: Literal["none", "sqrt", "full", "logit-adjust"] = Field(
        default="none", description="weights of classes of unequal size in the cross-entropy, or adjusted logits"
    )
    patience: int | None = Field(
        default=None, ge=1, description="early stopping: epochs without better validation accuracy, after the warm-up"
    )

    @model_validator(mode="before")
    @classmethod
    def _lr_of_sgd(cls, settings: Any) -> Any:
        if isinstance(settings, Mapping) and settings.get("optimizer") == "sgd":
            return {"lr": SGD_LR, **settings}
        return settings

    @model_validator(mode="after")
    def _parts_have_rows(self) -> TrainConfig:
        if self.batch_size and self.accumulate > self.batch_size:
            raise ValueError(f"accumulate={self.accumulate} must not exceed batch_size={self.batch_size}.")
        return self

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0..steps-1."""
        rise = self.warmup * steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))
