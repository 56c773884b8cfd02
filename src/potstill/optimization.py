"""How to train: the budget, the learning rate of every step, and the optimizer."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from potstill.config import Config


class TrainConfig(Config):
    """How to train: the budget and the optimizer."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=0.002, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which lr rises from 0")
    clip: float | None = Field(default=None, gt=0, description="largest norm of the gradient")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    select: Literal["last", "best"] = Field(default="last", description="which epoch's weights are kept")
    patience: int | None = Field(default=None, ge=1, description="epochs without a better validation that end training")

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0..steps-1."""
        rise = self.warmup * steps
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def optimizer(parameters: list[Tensor], config: TrainConfig, own: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return the optimizer; norms and biases are not decayed. own: groups of some parameters, taken as they are."""
    grouped = {id(parameter) for group in own for parameter in group["params"]}
    parameters = [parameter for parameter in parameters if id(parameter) not in grouped]
    groups = [
        *own,
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
