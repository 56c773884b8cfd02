"""Settings of a transfer, with the defaults of LP-FT: a linear probe, then fine-tuning at small learning rates.

Starting from a fitted head instead of a random one preserves the pretrained features in the first steps
(arXiv:2202.10054), and such a head needs no higher rate than the layers below it. Rates decrease with depth, because
early layers are more general.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from potstill.config import Config
from potstill.stages.recipe import REJECT, DataConfig, Requirement
from potstill.training.settings import TrainConfig

FINE: dict[str, Any] = {
    **{"epochs": 10, "batch_size": 32, "lr": 0.0001, "warmup": 0.1, "clip": 1.0},
    **{"select": "best", "patience": 5, "ema": 0.999},
}
SCRATCH: dict[str, Any] = {"lr": 0.002, "select": "last", "patience": None}


class FinetuneConfig(Config):
    """One transfer: images, a pretrained network, its features, and which stages are fine-tuned.

    weights: a file, "package:NAME", "hub" for the published ones, or "auto", the default (`models.packages`).
    mean, std: the normalisation of images in 0..1 that the weights were trained with, needed if the file has no card.
    """

    data: DataConfig
    model: str | tuple[str, ...] = Field(
        description="a name, or the folder of a stage whose network is reused; of several, the one with the best probe"
    )
    weights: str | None = None
    options: dict[str, Any] = {}
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    features: str = Field(default="pooled", description="input layer of the probe; auto tries several")
    views: int = Field(default=8, ge=0, description="augmented views of each image that the probe is fitted on")
    augment: str | list[Any] = Field(default="auto", description="augmentation policy")
    penalty: float | None = Field(default=None, gt=0, description="L2 penalty of the probe; null: cross-validated")
    folds: int = Field(default=5, ge=2, description="cross-validation folds")
    unfreeze: Literal["none", "all"] | int = Field(default="all", description="number of last stages to fine-tune")
    head_rate: float = Field(default=1.0, gt=0, description="learning rate of the head, times train.lr")
    layer_decay: float = Field(default=0.75, gt=0, le=1, description="layer-wise learning-rate decay per stage")
    batchnorm: Literal["auto", "fixed", "adapted"] = Field(
        default="auto", description="BatchNorm statistics; auto fixes them if the batch size is below 64"
    )
    from_scratch: bool = Field(default=False, description="train from random weights, as a baseline of the transfer")
    reject: Requirement | None = Field(default=None, description=REJECT)
    train: TrainConfig = TrainConfig(**FINE)
    seed: int = Field(default=0, ge=0, description="random seed")

    @model_validator(mode="before")
    @classmethod
    def _budget(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Use other defaults for random weights than for pretrained ones: a higher rate, and all epochs.

        On few validation images the best of the first epochs is one of noise: 60 epochs of 100 digits ended after 14,
        with 26 % instead of 65 % (docs/log.md, 2026-11-30).
        """
        train = settings.get("train", {})
        if not isinstance(train, dict) or not settings.get("from_scratch"):
            return settings
        return {**settings, "train": {**SCRATCH, **train}}

    @field_validator("model", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        """Take a list of one name as that name."""
        return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value

    @field_validator("unfreeze", mode="before")
    @classmethod
    def _part(cls, value: Any) -> Any:
        """Raise one error instead of one for each type of the union."""
        if value in ("none", "all") or (isinstance(value, int) and value >= 0):
            return value
        raise ValueError(f"must be none, all or the number of last stages to fine-tune, but is {value}.")

    @model_validator(mode="after")
    def _start(self) -> FinetuneConfig:
        if self.from_scratch and self.weights:
            raise ValueError("from_scratch and weights exclude each other: leave one out.")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together: one value per channel, for images in 0..1.")
        return self

    @model_validator(mode="after")
    def _comparable(self) -> FinetuneConfig:
        """Refuse what belongs to one network where there are several."""
        if isinstance(self.model, str):
            return self
        weights = self.weights not in (None, "auto", "hub")
        own = {"weights": weights, "mean and std": self.mean, "options": self.options, "penalty": self.penalty}
        given = [name for name, value in {**own, "from_scratch": self.from_scratch}.items() if value]
        if given or len(set(self.model)) < max(len(self.model), 2):
            which = f"and {', '.join(given)}, which one network has" if given else "which must be different names"
            raise ValueError(f"has several models, {which}. Give one --model, or only models with --weights auto.")
        return self

    @property
    def networks(self) -> tuple[str, ...]:
        """The models, one or several."""
        return (self.model,) if isinstance(self.model, str) else self.model

    @property
    def network(self) -> str:
        """The only model."""
        (name,) = self.networks
        return name

    @property
    def fixes_batchnorm(self) -> bool:
        """Whether BatchNorm keeps the pretrained statistics, with which the probe was fitted."""
        if self.batchnorm == "auto":
            return not self.from_scratch and (self.train.batch_size or 0) < SMALL_BATCH
        return self.batchnorm == "fixed"


SMALL_BATCH = 64
"""Batch size below which batch statistics are too noisy for BatchNorm."""
