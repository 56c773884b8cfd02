"""Every choice of a transfer, with the defaults of LP-FT: a probe on frozen features, then everything at small rates.

Fine-tuning from a fitted head instead of a random one keeps the features from being torn about in the first steps
(arXiv:2202.10054), and such a head needs no higher rate than the layers below it. Rates that fall with depth change
what is particular more than what is general.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from potstill.config import Config
from potstill.stages.recipe import DataConfig
from potstill.training.settings import TrainConfig

FINE: dict[str, Any] = {
    **{"epochs": 10, "batch_size": 32, "lr": 0.0001, "warmup": 0.1, "clip": 1.0},
    **{"select": "best", "patience": 5, "ema": 0.999},
}
SCRATCH_LR = 0.002


class FinetuneConfig(Config):
    """One transfer: images, a pretrained network, its features, and how much of it learns.

    weights: a file, or "hub" for the published ones (the default). mean, std: the normalisation of images in 0..1 that
    the weights were trained with, where the file has no card.
    """

    data: DataConfig
    model: str = Field(description="a name, or the folder of a stage whose network is reused")
    weights: str | None = None
    options: dict[str, Any] = {}
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    features: str = Field(default="pooled", description="the layer the probe sees; auto tries several")
    views: int = Field(default=8, ge=0, description="augmented views of each image that the probe is fitted on")
    augment: str | list[Any] = "auto"
    penalty: float | None = Field(default=None, gt=0, description="of the probe; null chooses one by folds")
    folds: int = Field(default=5, ge=2)
    unfreeze: Literal["none", "all"] | int = Field(default="all", description="how many of the last stages learn")
    head_rate: float = Field(default=1.0, gt=0, description="learning rate of the head, times train.lr")
    layer_decay: float = Field(default=0.75, gt=0, le=1, description="rate of a stage, as a share of the one above")
    batchnorm: Literal["auto", "fixed", "adapted"] = Field(
        default="auto", description="whether its statistics follow the new images; auto fixes them in small batches"
    )
    from_scratch: bool = Field(default=False, description="ignore weights: what the transfer is compared with")
    train: TrainConfig = TrainConfig(**FINE)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _budget(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Random weights take a higher learning rate than pretrained ones, where none is given."""
        train = given.get("train", {})
        if not isinstance(train, dict) or not given.get("from_scratch"):
            return given
        return {**given, "train": {"lr": SCRATCH_LR, **train}}

    @field_validator("unfreeze", mode="before")
    @classmethod
    def _part(cls, given: Any) -> Any:
        """Say in one sentence what a union of types says in several."""
        if given in ("none", "all") or (isinstance(given, int) and given >= 0):
            return given
        raise ValueError(f"must be none, all or how many of the last stages learn, and is {given}.")

    @model_validator(mode="after")
    def _start(self) -> FinetuneConfig:
        if self.from_scratch and self.weights:
            raise ValueError("from_scratch and weights exclude each other: leave one out.")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together: give both, one value a channel, for images in 0..1.")
        return self

    @property
    def fixes_batchnorm(self) -> bool:
        """Whether BatchNorm keeps the statistics that the probe was fitted with."""
        if self.batchnorm == "auto":
            return not self.from_scratch and self.train.batch_size < SMALL_BATCH
        return self.batchnorm == "fixed"


SMALL_BATCH = 64
"""Images a step below which the mean and variance of a batch say little of the data."""
